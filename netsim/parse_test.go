// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

func TestParseEverything(t *testing.T) {
	const text = `# a comment first
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
---
apiVersion: netsim.evenkeel.io/v1
kind: Topology
metadata: {name: demo}
spec:
  nodes:
  - name: a
    podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]
    labels: {topology.kubernetes.io/zone: z1}
  - {name: b, podCIDRs: [10.10.2.0/24]}
  wires: [{between: [b, a], mtu: 1400}]
  pods:
  - {name: web, node: b, count: 2, labels: {app: web}, annotations: {note: x}, serviceAccount: web,
     serve: ["http :8080", "udp :9001"], ports: [{name: http, containerPort: 8080, protocol: TCP}],
     command: ["sh", "-c", "true"], enrol: true, containers: [main, side]}
  - {name: host, namespace: shop, node: a, hostNetwork: true}
  agent: {enabled: true, args: [--log-level=debug]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
`
	got, err := Parse(strings.NewReader(text), "demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := &Topology{Name: "demo", File: "demo.yaml",
		Nodes: []NodeSpec{
			{Name: "a", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.10.1.0/24"), netip.MustParsePrefix("fd00:10:1::/64")},
				Labels: map[string]string{"topology.kubernetes.io/zone": "z1"}},
			{Name: "b", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.10.2.0/24")}}},
		Wires: []WireSpec{{Between: []string{"b", "a"}, MTU: 1400}},
		Pods: []PodSpec{
			{Name: "web", Namespace: "default", Node: "b", Count: 2, Labels: map[string]string{"app": "web"},
				Annotations: map[string]string{"note": "x"}, ServiceAccount: "web", Serve: []string{"http :8080", "udp :9001"},
				Ports:   []PortSpec{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}},
				Command: []string{"sh", "-c", "true"}, Enrol: true, Containers: []string{"main", "side"}},
			{Name: "host", Namespace: "shop", Node: "a", HostNetwork: true}},
		Agent: AgentSpec{Enabled: true, Args: []string{"--log-level=debug"}}, Dataplane: Evenkeel,
	}
	compare := cmp.Options{cmpopts.IgnoreUnexported(Topology{}), cmpopts.IgnoreFields(Topology{}, "Documents"),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(want, got, compare...); diff != "" {
		t.Error(diff)
	}
	// The other documents keep their lines, and nothing is left of the Topology.
	documents, skipped, err := manifest.Decode(strings.NewReader(got.Documents), "demo.yaml")
	if err != nil || len(skipped) != 0 || len(documents) != 2 {
		t.Fatalf("%v, %v, %v", documents, skipped, err)
	}
	if lines := []int{documents[0].Line, documents[1].Line}; !slices.Equal(lines, []int{2, 24}) {
		t.Errorf("documents are in lines %d", lines)
	}
}

// Every mistake is told with the file, the line and what is wrong there.
func TestParseRefuses(t *testing.T) {
	nodes := "  nodes:\n  - {name: a, podCIDRs: [10.10.1.0/24]}\n  - {name: b, podCIDRs: [10.10.2.0/24]}\n" // lines 5 to 7
	for _, c := range []struct{ what, spec, want string }{
		{"unknown field", "  nodes:\n  - {name: a, podCIDRs: [10.10.1.0/24], color: red}\n",
			":6: Topology lab: spec.nodes[0].color: unknown field"},
		{"field twice", "  nodes:\n  - name: a\n    name: b\n", ":7: "},
		{"wrong type", "  nodes: 7\n", ":5: Topology lab: spec.nodes: needs a list"},
		{"number for a name", "  nodes:\n  - {name: 7, podCIDRs: [10.10.1.0/24]}\n",
			":6: Topology lab: spec.nodes[0].name: needs a string"},
		{"no prefix", "  nodes:\n  - {name: a, podCIDRs: [10.10.1.0]}\n", ":6: Topology lab: spec.nodes[0].podCIDRs[0]: "},
		{"host bits", "  nodes:\n  - {name: a, podCIDRs: [10.10.1.5/24]}\n", "write 10.10.1.0/24"},
		{"no nodes", "  pods: []\n", "spec.nodes: a lab has 1 to"},
		{"no prefix at all", "  nodes:\n  - {name: a}\n", ":6: Topology lab: spec.nodes[0].podCIDRs: node a needs one"},
		{"two of a family", "  nodes:\n  - {name: a, podCIDRs: [10.1.0.0/24, 10.2.0.0/24]}\n", "second of its family"},
		{"overlap", "  nodes:\n  - {name: a, podCIDRs: [10.10.0.0/16]}\n  - {name: b, podCIDRs: [10.10.2.0/24]}\n",
			":7: Topology lab: spec.nodes[1].podCIDRs[0]: 10.10.2.0/24 and 10.10.0.0/16 of node a overlap"},
		{"loopback", "  nodes:\n  - {name: a, podCIDRs: [127.0.0.0/8]}\n", "not for pods"},
		{"v4-mapped", "  nodes:\n  - {name: a, podCIDRs: [\"::ffff:10.1.0.0/120\"]}\n", "not for pods"},
		{"node twice", "  nodes:\n  - {name: a, podCIDRs: [10.1.0.0/24]}\n  - {name: a, podCIDRs: [10.2.0.0/24]}\n",
			":7: Topology lab: spec.nodes[1].name: node a is already in line 6"},
		{"dot in a node", "  nodes:\n  - {name: a.b, podCIDRs: [10.1.0.0/24]}\n",
			":6: Topology lab: spec.nodes[0].name: \"a.b\""},
		{"label", "  nodes:\n  - {name: a, podCIDRs: [10.1.0.0/24], labels: {x: \"-\"}}\n", "spec.nodes[0].labels[x]"},
		{"wire to nowhere", nodes + "  wires:\n  - {between: [a, z]}\n",
			":9: Topology lab: spec.wires[0].between[1]: there is no node \"z\""},
		{"wire to itself", nodes + "  wires:\n  - {between: [a, a]}\n",
			":9: Topology lab: spec.wires[0].between: a wire from a to itself"},
		{"wire with three ends", nodes + "  wires:\n  - {between: [a, b, a]}\n",
			":9: Topology lab: spec.wires[0].between: needs two nodes"},
		{"wire twice", nodes + "  wires:\n  - {between: [a, b]}\n  - {between: [b, a]}\n",
			":10: Topology lab: spec.wires[1].between"},
		{"small mtu", nodes + "  wires:\n  - {between: [a, b], mtu: 500}\n", ":9: Topology lab: spec.wires[0].mtu: 500"},
		{"negative mtu", nodes + "  wires:\n  - {between: [a, b], mtu: -1}\n", ":9: Topology lab: spec.wires[0].mtu: -1"},
		{"mtu 0", nodes + "  wires:\n  - {between: [a, b], mtu: 0}\n", ":9: Topology lab: spec.wires[0].mtu: 0 is not between"},
		{"pod on no node", nodes + "  pods:\n  - {name: p, node: c}\n",
			":9: Topology lab: spec.pods[0].node: there is no node \"c\""},
		{"pod without node", nodes + "  pods:\n  - {name: p}\n", ":9: Topology lab: spec.pods[0].node"},
		{"pod twice", nodes + "  pods:\n  - {name: p-1, node: a}\n  - {name: p, node: b, count: 2}\n",
			":10: Topology lab: spec.pods[1].name: pod default/p-1 is already in line 9"},
		{"pod name", nodes + "  pods:\n  - {name: P, node: a}\n", ":9: Topology lab: spec.pods[0].name"},
		{"negative count", nodes + "  pods:\n  - {name: p, node: a, count: -1}\n",
			":9: Topology lab: spec.pods[0].count: -1"},
		{"count 0", nodes + "  pods:\n  - {name: p, node: a, count: 0}\n",
			":9: Topology lab: spec.pods[0].count: 0 is not between"},
		{"NUL in a command", nodes + "  pods:\n  - {name: p, node: a, command: [sh, \"a\\0b\"]}\n",
			":9: Topology lab: spec.pods[0].command[1]: \"a\\x00b\" has a NUL"},
		{"huge count", nodes + "  pods:\n  - {name: p, node: a, count: 1000000000}\n",
			":9: Topology lab: spec.pods[0].count"},
		{"too few addresses", "  nodes:\n  - {name: a, podCIDRs: [10.10.1.0/30]}\n" +
			"  pods:\n  - {name: p, node: a, count: 2}\n",
			":8: Topology lab: spec.pods[0].count: node a has no address for 1 of these pods"},
		{"server", nodes + "  pods:\n  - {name: p, node: a, serve: [\"ftp :21\"]}\n",
			":9: Topology lab: spec.pods[0].serve[0]: server \"ftp :21\""},
		{"port twice", nodes + "  pods:\n  - {name: p, node: a, serve: [\"http :80\", \"tcp :80\"]}\n",
			":9: Topology lab: spec.pods[0].serve[1]: tcp port 80 is served already"},
		{"port of the node twice", nodes + "  pods:\n  - {name: p, node: a, hostNetwork: true, serve: [\"tcp :80\"]}\n" +
			"  - {name: q, node: a, hostNetwork: true, serve: [\"tcp :80\"]}\n",
			":10: Topology lab: spec.pods[1].serve[0]: port 80 of node a belongs to pod default/p"},
		{"container port", nodes + "  pods:\n  - {name: p, node: a, ports: [{containerPort: 70000}]}\n",
			":9: Topology lab: spec.pods[0].ports[0].containerPort: 70000"},
		{"enrol without agents", nodes + "  pods:\n  - {name: p, node: a, enrol: true}\n",
			":9: Topology lab: spec.pods[0].enrol"},
		{"data plane", nodes + "  dataplane: cilium\n",
			":8: Topology lab: spec.dataplane: \"cilium\" is unknown: there are none, evenkeel, ambient, ztunnel"},
		{"data plane of another type", nodes + "  dataplane: {name: ambient}\n", ":8: Topology lab: spec.dataplane: needs a string"},
		{"proxies without agents", nodes + "  dataplane: ambient\n",
			":8: Topology lab: spec.dataplane: ambient is a process on each node"},
		{"arguments of ztunnel", nodes + "  dataplane: ztunnel\n  agent: {enabled: true, args: [--drain=1s]}\n",
			":9: Topology lab: spec.agent.args: ztunnel has no arguments"},
		{"a service that no cluster takes", nodes + "---\napiVersion: v1\nkind: Service\n" +
			"metadata: {name: s}\nspec: {ports: [{port: 0}]}\n",
			"test.yaml:12: Service s: spec.ports[0].port"},
		{"a pod that the lab makes", nodes + "  pods:\n  - {name: p, node: a, count: 2}\n---\napiVersion: v1\nkind: Pod\n" +
			"metadata: {name: p-1}\nspec: {containers: [{name: c}]}\n",
			"test.yaml:11: Pod default/p-1: is already defined at test.yaml:9"},
		{"a node that the lab makes", nodes + "---\napiVersion: v1\nkind: Node\nmetadata: {name: b}\n",
			"test.yaml:9: Node b: is already defined at test.yaml:7"},
		{"no kind of a lab", nodes + "---\napiVersion: netsim.evenkeel.io/v1\nkind: Topolgy\nmetadata: {name: d}\n",
			"test.yaml:9: Topolgy d: netsim.evenkeel.io has no such kind: write kind: Topology"},
		{"two topologies", nodes + "---\napiVersion: netsim.evenkeel.io/v1\nkind: Topology\nmetadata: {name: x}\n",
			"test.yaml:9: Topology: is the second"},
	} {
		_, err := Parse(strings.NewReader(topologyText("lab", c.spec)), "test.yaml")
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "test.yaml:") {
			t.Errorf("%s: the error is %v\nand should have %q", c.what, err, c.want)
		}
	}
}

// TestParseSkipsOtherKinds: whole manifests of an application can follow the Topology.
func TestParseSkipsOtherKinds(t *testing.T) {
	text := topologyText("lab", "  nodes:\n  - {name: a, podCIDRs: [10.0.1.0/24]}\n") +
		"---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: x}\n"
	got, err := Parse(strings.NewReader(text), "test.yaml")
	if err != nil || len(got.Skipped) != 1 || got.Skipped[0].Kind != "Deployment" || got.Skipped[0].Origin() != "test.yaml:8" {
		t.Fatalf("%+v, %v", got, err)
	}
	if !strings.Contains(got.Documents, "kind: Deployment") {
		t.Errorf("agents do not get to name it: %s", got.Documents)
	}
}

func TestParseRefusesOtherFiles(t *testing.T) {
	for text, want := range map[string]string{
		"": "has no Topology",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n":                   "has no Topology",
		"apiVersion: netsim.evenkeel.io/v2\nkind: Topology\nmetadata: {name: x}\n": "write netsim.evenkeel.io/v1",
		"apiVersion: netsim.evenkeel.io/v1\nkind: Topology\n" +
			"spec: {nodes: [{name: a, podCIDRs: [10.0.0.0/24]}]}\n": "metadata.name: is missing",
		"a: [b\n": "test.yaml:2",
	} {
		if _, err := Parse(strings.NewReader(text), "test.yaml"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParseFile("/no/such/file.yaml"); err == nil || !strings.Contains(err.Error(), "/no/such/file.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// The demo is a topology that people start from.
func TestDemoParses(t *testing.T) {
	const path = "../cmd/evenkeel-chaos/demo.yaml"
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseFile(path); err != nil {
		t.Error(err)
	}
}

// Whatever the file: no panic, and what is accepted can be planned, has an address of its own for every pod, and writes
// documents that the agents accept.
func FuzzParse(f *testing.F) {
	f.Add(topologyText("lab", threeInARow))
	f.Add(topologyText("lab", before))
	f.Add(topologyText("lab", after))
	f.Add(topologyText("lab", "  nodes: [{name: a, podCIDRs: [10.0.0.0/8]}]\n  pods: [{name: p, node: a, count: 3}]\n"))
	f.Add(topologyText("lab", "  nodes: [&a {name: a, podCIDRs: [\"fd00::/64\"]}, *a]\n"))
	f.Add("{apiVersion: netsim.evenkeel.io/v1, kind: Topology}")
	f.Add("--- # x\n...\n---\n- a\n")
	f.Fuzz(func(t *testing.T, text string) {
		topology, err := Parse(strings.NewReader(text), "fuzz.yaml")
		if err != nil {
			if !strings.Contains(err.Error(), "fuzz.yaml") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		s := plan(topology, &state{})
		seen := map[netip.Addr]bool{}
		for _, n := range s.Nodes {
			for _, a := range n.Spec.addresses(nodeOrdinal) {
				seen[a] = true
			}
		}
		for _, p := range s.Pods {
			for i, a := range p.Addresses {
				if seen[a] && !p.Spec.HostNetwork {
					t.Fatalf("address %s is there twice", a)
				}
				seen[a] = true
				if !s.node(p.Spec.Node).Spec.PodCIDRs[i].Contains(a) {
					t.Fatalf("address %s is not in %s", a, s.node(p.Spec.Node).Spec.PodCIDRs[i])
				}
			}
		}
		if len(s.Pods) > 100 {
			return
		}
		dir := t.TempDir()
		texts, err := encodeManifests(s, topology.Documents)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := texts.write(dir); err != nil {
			t.Fatal(err)
		}
		if _, skipped, err := manifest.ReadPath(dir); err != nil || len(skipped) > 0 {
			t.Fatalf("the documents are not accepted: %v, %v", skipped, err)
		}
	})
}
