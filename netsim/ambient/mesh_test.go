// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

const manifests = `
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {nodeName: a, serviceAccountName: shop, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: slow, labels: {app: web}}
spec: {nodeName: b, containers: [{name: c}]}
status: {podIPs: [{ip: 10.0.1.2}], conditions: [{type: Ready, status: "False"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, labels: {app: host}}
spec: {nodeName: a, hostNetwork: true, containers: [{name: c}]}
status: {podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIPs: [10.96.0.1, "fd00:96::1"]
  clusterIP: 10.96.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: plain, port: 90}, {name: u, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: eager}
spec:
  clusterIP: 10.96.0.2
  selector: {app: web}
  publishNotReadyAddresses: true
  internalTrafficPolicy: Local
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: manual}
spec: {clusterIP: 10.96.0.3, ports: [{name: p, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: manual-1, labels: {kubernetes.io/service-name: manual}}
addressType: IPv4
ports: [{name: p, port: 8080}, {name: q, port: 1}]
endpoints: [{addresses: [10.0.9.9]}, {addresses: [10.0.9.8], conditions: {ready: false}}]
`

func mustMesh(t *testing.T) Mesh {
	t.Helper()
	documents, _, err := manifest.Decode(strings.NewReader(manifests), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return NewMesh(documents, func(pod string) bool { return pod == "default/web" })
}

func TestMesh(t *testing.T) {
	a, p := netip.MustParseAddr, netip.MustParseAddrPort
	want := Mesh{
		Workloads: []Workload{
			{Namespace: "default", Name: "web", ServiceAccount: "shop", Node: "a",
				Addresses: []netip.Addr{a("10.0.0.2"), a("fd00::2")}, Captured: true},
			{Namespace: "default", Name: "slow", ServiceAccount: "default", Node: "b", Addresses: []netip.Addr{a("10.0.1.2")}},
		},
		Services: []Service{
			{Namespace: "default", Name: "web", Addresses: []netip.Addr{a("10.96.0.1"), a("fd00:96::1")}, Ports: []Port{
				{80, []netip.AddrPort{p("10.0.0.2:8080"), p("[fd00::2]:8080")}},
				{90, []netip.AddrPort{p("10.0.0.2:90"), p("[fd00::2]:90")}}}},
			{Namespace: "default", Name: "eager", Local: true, Addresses: []netip.Addr{a("10.96.0.2")}, Ports: []Port{
				{80, []netip.AddrPort{p("10.0.0.2:80"), p("10.0.1.2:80"), p("[fd00::2]:80")}}}},
			{Namespace: "default", Name: "manual", Addresses: []netip.Addr{a("10.96.0.3")}, Ports: []Port{
				{80, []netip.AddrPort{p("10.0.9.9:8080")}}}},
		},
	}
	if diff := cmp.Diff(want, mustMesh(t), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestChoose(t *testing.T) {
	d := newDirectory(&Config{Node: "b", Mesh: mustMesh(t)})
	last := func(n int) int { return n - 1 }
	for to, want := range map[string]string{
		"10.96.0.1:80":     "10.0.0.2:8080",
		"[fd00:96::1]:80":  "[fd00::2]:8080", // of the family that was dialled
		"10.96.0.2:80":     "10.0.1.2:80",    // of its own node
		"10.0.0.2:1":       "10.0.0.2:1",     // no service
		"192.0.2.1:443":    "192.0.2.1:443",
		"10.96.0.1:81":     "service default/web has no port 81",
		"[fd00:96::1]:453": "service default/web has no port 453",
	} {
		got, err := d.choose(netip.MustParseAddrPort(to), last)
		text := got.String()
		if err != nil {
			text = err.Error()
		}
		if text != want {
			t.Errorf("%s: %s, not %s", to, text, want)
		}
	}
}
