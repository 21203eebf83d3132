// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"errors"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/bpf"
)

func TestDecide(t *testing.T) {
	tests := []struct {
		facts  Facts
		reason Reason
		in     string
	}{
		{Facts{}, "", ""},
		{Facts{HostNetwork: true}, HostNetwork, "host network"},
		{Facts{Sidecar: "linkerd-proxy"}, Sidecar, "linkerd-proxy"},
		{Facts{OtherMesh: "kmesh"}, OtherMesh, "kmesh"},
		{Facts{HostNetwork: true, Sidecar: "x", OtherMesh: "y"}, HostNetwork, "host network"},
	}
	for _, test := range tests {
		err := Decide("a/b", test.facts)
		var refused *RefusedError
		switch {
		case test.reason == "":
			if err != nil {
				t.Errorf("%+v: %v", test.facts, err)
			}
		case !errors.As(err, &refused), refused.Reason != test.reason, !strings.Contains(err.Error(), test.in),
			!strings.Contains(err.Error(), "a/b"):
			t.Errorf("%+v: %v", test.facts, err)
		}
	}
}

// FuzzName: a name and a path that are accepted are read from the map as they were written.
func FuzzName(f *testing.F) {
	for _, seed := range [][2]string{
		{"shop/web-0", "/run/netns/a"}, {"a/b.c", "/proc/1/ns/net"}, {"web", "x"}, {"a/b\x00", "/x\x00y"},
		{strings.Repeat("a", 63) + "/" + strings.Repeat("b", 253), "/" + strings.Repeat("c", 190)},
		{"a/b", "/" + strings.Repeat("c", 191)}, {"a/b", "/\xff"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, path string) {
		if CheckName(name) != nil || strings.Contains(path, "\x00") { // no path has one
			return
		}
		n, err := nameOf(Pod{Name: name, Netns: path})
		if err != nil {
			if len(path) < len(bpf.MeshWorkloadName{}.Netns) {
				t.Errorf("%q, %q: %v", name, path, err)
			}
			return
		}
		if gotName, gotPath := text(n.Pod[:]), text(n.Netns[:]); gotName != name || gotPath != path {
			t.Errorf("%q, %q became %q, %q", name, path, gotName, gotPath)
		}
	})
}
