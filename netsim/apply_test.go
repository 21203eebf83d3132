// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

const before = `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  - {name: c, podCIDRs: [10.10.3.0/24, "fd00:10:3::/64"]}
  wires:
  - {between: [a, b]}
  - {between: [b, c]}
  pods:
  - {name: client, node: a}
  - {name: kept, node: b, serve: ["tcp :9000"], labels: {app: one}}
  - {name: gone, node: b, serve: ["tcp :9000"]}
  - {name: moved, node: c, serve: ["tcp :9000"]}
`

// Node c goes and d comes, behind another wire; gone goes, new comes, moved moves.
const after = `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  - {name: d, podCIDRs: [10.10.4.0/24, "fd00:10:4::/64"]}
  wires:
  - {between: [a, b]}
  - {between: [a, d]}
  pods:
  - {name: client, node: a}
  - {name: kept, node: b, serve: ["tcp :9000"], labels: {app: two}}
  - {name: new, node: d, serve: ["tcp :9000"]}
  - {name: moved, node: d, serve: ["tcp :9000"]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
`

// mustReach asks a pod's server on each of its addresses.
func mustReach(t *testing.T, l *Lab, from, to string) {
	t.Helper()
	for _, address := range l.Pod(to).Addresses {
		at := address.String() + ":9000"
		if address.Is6() {
			at = "[" + address.String() + "]:9000"
		}
		if got, err := ask(t, l.Pod(from), "tcp", at, "hello"); err != nil || got != "hello" {
			t.Errorf("%s to %s at %s: %q, %v", from, to, at, got, err)
		}
	}
}

// mustRoute tells whether a node has a route to a prefix.
func mustRoute(t *testing.T, l *Lab, node, prefix string) bool {
	t.Helper()
	r, err := l.paths.existingRouter(node)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	routes, err := r.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.String() == prefix })
}

func TestApplyChangesWhatChanged(t *testing.T) {
	l := mustUp(t, before)
	for _, pod := range []string{"kept", "gone", "moved"} {
		mustReach(t, l, "client", pod)
	}
	kept := l.Info().Pods[1].Processes[0]
	changes, err := l.Apply(t.Context(), mustParse(t, l.Name(), after))
	if err != nil {
		t.Fatal(err)
	}
	want := Changes{PodsAdded: 2, PodsRemoved: 2, NodesAdded: 1, NodesRemoved: 1, WiresAdded: 1, WiresRemoved: 1, Manifests: 3}
	if changes != want {
		t.Errorf("%+v, not %+v", changes, want)
	}
	if l.Pod("gone") != nil || l.Node("c") != nil {
		t.Error("what is gone is there")
	}
	for _, pod := range []string{"kept", "new", "moved"} {
		mustReach(t, l, "client", pod)
	}
	if now := l.Info().Pods[1].Processes[0]; now.PID != kept.PID || !now.Running {
		t.Errorf("the server of a pod that stays was process %d and is %+v", kept.PID, now)
	}
	for file, want := range map[string]string{podsFile: "app: two", nodesFile: "name: d", documentsFile: "10.96.0.10"} {
		text, err := os.ReadFile(filepath.Join(l.paths.manifests(), file))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %q: %v: %s", file, want, err, text)
		}
	}
	p := l.paths
	for _, left := range []string{p.nodeDir("c"), p.nodeCgroup("c"), p.nodeNetns("c"), p.shownNetns("c")} {
		if _, err := os.Lstat(left); err == nil {
			t.Errorf("%s is left of node c", left)
		}
	}
	for _, node := range []string{"a", "b"} {
		if mustRoute(t, l, node, "10.10.3.0/24") || !mustRoute(t, l, node, "10.10.4.0/24") {
			t.Errorf("node %s has a route to node c, which is gone, or none to node d", node)
		}
	}
	changes, err = l.Apply(t.Context(), mustParse(t, l.Name(), after))
	if err != nil || changes != (Changes{}) {
		t.Errorf("applied again: %+v, %v", changes, err)
	}
	if _, err = l.Apply(t.Context(), mustParse(t, l.Name(), before)); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"kept", "gone", "moved"} {
		mustReach(t, l, "client", pod)
	}
	if _, err := os.Lstat(filepath.Join(l.paths.manifests(), documentsFile)); err == nil {
		t.Error("documents that the topology has no more are left")
	}
}

// An apply that fails halfway leaves a lab that the next one finishes.
func TestApplyGoesOnAfterAFailure(t *testing.T) {
	l := mustUp(t, before)
	broken := strings.Replace(after, `{name: new, node: d, serve: ["tcp :9000"]}`,
		`{name: new, node: d, command: [/no/such/program]}`, 1)
	_, err := l.Apply(t.Context(), mustParse(t, l.Name(), broken))
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Fatalf("apply of a command that is not there: %v", err)
	}
	if _, err := l.Apply(t.Context(), mustParse(t, l.Name(), after)); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"kept", "new", "moved"} {
		mustReach(t, l, "client", pod)
	}
}

func TestApplyRefusesAnotherLab(t *testing.T) {
	l := mustUp(t, before)
	_, err := l.Apply(t.Context(), mustParse(t, labName(), before))
	if err == nil || !strings.Contains(err.Error(), l.Name()) {
		t.Errorf("topology of another lab: %v", err)
	}
}
