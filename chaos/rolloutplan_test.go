// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

const planned = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {nodeName: b, containers: [{name: web, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.1.2}], podIP: 10.0.1.2, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec:
  clusterIP: 10.96.0.2
  internalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 65535, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {clusterIP: 10.96.0.3, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside-1, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [192.0.2.1]}]
`

// Each node's client meets every port, by what its own node has for it.
func TestPlanRollout(t *testing.T) {
	documents, _, err := manifest.Decode(strings.NewReader(planned), "planned.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pod := func(name, node string) netsim.PodInfo {
		return netsim.PodInfo{Namespace: "default", Name: name, Node: node, Enrolled: true}
	}
	lab := netsim.Info{Pods: []netsim.PodInfo{pod("client", "a"), pod("another", "a"), pod("web", "b"),
		{Namespace: "default", Name: "host", Node: "a", HostNetwork: true}}}
	p, err := planRollout(lab, documents)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.clients) != 2 || len(p.clients["default/client"]) == 0 || len(p.clients["default/web"]) == 0 {
		t.Fatalf("clients: %v", p.clients)
	}
	if got := p.servers["default/web"]; len(got) != 2 || len(p.servers) != 1 {
		t.Errorf("servers: %v", p.servers)
	}
	if len(p.notes) != 1 || !strings.Contains(p.notes[0], "192.0.2.1") {
		t.Errorf("notes: %q", p.notes)
	}
	must := func(client, to string) map[string]int {
		found := map[string]int{}
		for _, s := range p.clients[client] {
			if s.To == netip.MustParseAddrPort(to) {
				found[s.Must]++
			}
		}
		return found
	}
	for _, c := range []struct {
		client, to       string
		refused, allowed bool
	}{
		{"default/client", "10.96.0.1:80", false, true},
		{"default/client", "10.96.0.2:65535", true, false}, // none on its node
		{"default/web", "10.96.0.2:65535", false, true},
		{"default/client", "10.96.0.2:65534", true, false}, // no service has that port
		{"default/client", "10.0.1.2:8080", false, true},
		{"default/client", "10.96.0.3:80", false, false},
	} {
		got := must(c.client, c.to)
		if (got[record.MustFail] > 0) != c.refused || (got[""] > 0) != c.allowed {
			t.Errorf("%s to %s: %v", c.client, c.to, got)
		}
	}
	for client, flows := range p.clients {
		names := map[string]bool{}
		for _, s := range flows {
			if names[s.Name] {
				t.Errorf("two flows of %s are called %q", client, s.Name)
			}
			names[s.Name] = true
		}
	}
	if _, err := planRollout(netsim.Info{}, documents); err == nil {
		t.Error("there is a plan for a lab without pods")
	}
}

// Many flows are watched at longer periods.
func TestRolloutPace(t *testing.T) {
	p := &rolloutPlan{clients: map[string][]flow.Spec{"a": make([]flow.Spec, 250)}}
	p.pace()
	if got := p.clients["a"][0].Period; got != flow.Duration(30*time.Millisecond) || len(p.notes) != 1 {
		t.Errorf("period %v, notes %q", time.Duration(got), p.notes)
	}
}
