// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"os"
	"slices"

	"github.com/cilium/ebpf"
)

// lookAtLinks settles what attaches the hooks of the whole node.
func (a *adoption) lookAtLinks() error {
	for _, h := range a.hooks {
		if !h.At.node() {
			continue
		}
		path := join(pathLinks, h.Name)
		l := a.links[h.Name]
		entry := a.entries[h.Name]
		switch {
		case a.isStray(path):
		case l == nil && !a.native(h):
		case l == nil:
			a.attaches = append(a.attaches, h)
		case l.at != h.At || h.At == Cgroup && l.attach != h.Attach || entry != nil && l.info.Program != programID(entry):
			a.damage(path, "it attaches something else than the entry program of the hook", evict)
		case l.defunct:
			a.attaches = append(a.attaches, h)
		case h.At == Cgroup && l.target != a.cgroup:
			a.changes = append(a.changes, Change{Name: path, Expected: "attached to the cgroup " + cgroupName(a.cgroup),
				Found: "attached to the cgroup " + cgroupName(l.target)})
		case h.At == Sockhash && a.maps[h.Map] != nil && ebpf.MapID(l.target) != mapID(a.maps[h.Map]):
			a.damage(path, "it is attached to another map than "+join(pathMaps, h.Map), evict)
		}
	}
	for name := range a.links {
		if !slices.ContainsFunc(a.hooks, func(h Hook) bool { return h.Name == name && h.At.node() }) && !a.orphaned(name) {
			a.extra(join(pathLinks, name), a.same)
		}
	}
	return nil
}

func (a *adoption) lookAtCurrent() error {
	want := generationPath(a.word().Serve())
	found, err := os.Readlink(a.tree.at(pathCurrent))
	if err == nil && found == want || a.isStray(pathCurrent) {
		return nil
	}
	a.repair(StepLinkCurrent, pathCurrent, func() error { return a.tree.linkCurrent(a.word().Serve()) })
	return nil
}
