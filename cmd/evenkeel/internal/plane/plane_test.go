// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

func TestEveryCounterHasAName(t *testing.T) {
	if len(countNames) != int(bpf.MeshCountCOUNTS) {
		t.Fatalf("%d names for %d counters", len(countNames), bpf.MeshCountCOUNTS)
	}
	seen := make(map[string]bool)
	for i, name := range countNames {
		if name == "" || seen[name] {
			t.Errorf("counter %d has the name %q", i, name)
		}
		seen[name] = true
	}
}

func TestMapsAreAllThere(t *testing.T) {
	spec, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	frozen, own := make(map[string]*ebpf.Map), make(map[string]*ebpf.Map)
	for name := range spec.Maps {
		if slices.Contains(bpf.Frozen(), name) {
			frozen[name] = &ebpf.Map{}
		} else {
			own[name] = &ebpf.Map{}
		}
	}
	g := &upgrade.Generation{Number: 7, Maps: own}
	maps, err := Maps(frozen, g)
	if err != nil {
		t.Fatal(err)
	}
	if maps.ServiceIds != own["service_ids"] || maps.WorkloadNames != frozen["workload_names"] {
		t.Error("a map is another")
	}
	for _, name := range []string{"service_ids", "services", "slots", "endpoints", "affinities", "peers"} {
		m := own[name]
		delete(own, name)
		if _, err := Maps(frozen, g); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "7") {
			t.Errorf("without %s: %v", name, err)
		}
		own[name] = m
	}
}

func TestCgroupRoot(t *testing.T) {
	const hybrid = `23 1 0:22 / /proc rw,nosuid shared:5 - proc proc rw
30 26 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu
`
	tests := []struct{ name, text, want string }{
		{"hybrid", hybrid, "/sys/fs/cgroup/unified"},
		{"unified, no optional fields", "25 20 0:21 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
		{"several optional fields", "25 20 0:21 / /c rw shared:1 master:2 - cgroup2 none rw\n", "/c"},
		{"a space in the path", `25 20 0:21 / /a\040b\134c rw - cgroup2 none rw`, `/a b\c`},
		{"named so, but another", "25 20 0:21 / /cgroup2 rw - tmpfs cgroup2 rw\n", ""},
		{"none", "", ""},
		{"half a line", "25 20 0:21 / /c rw -", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseCgroupRoot(strings.NewReader(test.text))
			if err != nil || got != test.want {
				t.Errorf("%q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func FuzzCgroupRoot(f *testing.F) {
	f.Add("31 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate\n")
	f.Add("1 2 3 4 5 6 - cgroup2")
	f.Add(" - cgroup2 - cgroup2 - cgroup2 - cgroup2")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseCgroupRoot(strings.NewReader(text))
		if err == nil && got != "" && !strings.Contains(text, "cgroup2") {
			t.Errorf("%q found in %q", got, text)
		}
	})
}

func TestRefusal(t *testing.T) {
	size := func(name string, is, was uint32) upgrade.Change {
		return upgrade.Change{Name: name, Expected: "is", Found: "was", Entries: [2]uint32{is, was}}
	}
	is, was := bpf.DefaultSizes(), bpf.DefaultSizes()
	is.Services, is.Endpoints, is.Workloads, is.Affinities, is.Peers = 30_000, 7, 8, 9, 10
	a, b := is.MaxEntries(), was.MaxEntries()
	var all []upgrade.Change
	for name := range a {
		all = append(all, size("gen/1/maps/"+name, a[name], b[name]))
	}
	text := Refusal(&upgrade.RefusedError{Changes: all}, false).Error()
	for _, want := range []string{
		"--max-services was 20000, is 30000", "--max-endpoints was 100000, is 7", "--max-workloads was 1000, is 8",
		"--max-affinities was 8192, is 9", "--max-peers was 8192, is 10", "--max-services 20000",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("not once %q in %s", want, text)
		}
	}
	if !strings.HasPrefix(text, "--max-") || strings.Count(text, "untouched") != 1 {
		t.Errorf("%s", text)
	}
	text = Refusal(&upgrade.RefusedError{Changes: all}, true).Error()
	if !strings.Contains(text, "evenkeel upgrade apply --max-") || strings.Contains(text, "uninstall") {
		t.Errorf("it does not name the upgrade that can do it: %s", text)
	}
	cgroup := func(hook string) upgrade.Change {
		return upgrade.Change{Name: "links/" + hook, Expected: "attached to the cgroup /b", Found: "attached to the cgroup /a"}
	}
	text = Refusal(&upgrade.RefusedError{Changes: []upgrade.Change{
		size("gen/1/maps/services", 11, 6), cgroup("connect4"), cgroup("connect6"),
	}}, true).Error()
	const want = "--max-services was 5, is 10; links/connect4, links/connect6: found attached to the cgroup /a, expected " +
		"attached to the cgroup /b: "
	if !strings.HasPrefix(text, want) {
		t.Errorf("%s", text)
	}
}
