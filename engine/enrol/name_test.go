// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNameBelongsToOne: a name that a namespace which lives has is not given to another; one whose path is gone or leads
// elsewhere is succeeded, though its processes should linger.
func TestNameBelongsToOne(t *testing.T) {
	tests := []struct {
		name string
		then func(t *testing.T, first pod)
		free bool // the name
	}{
		{"the first lives", func(*testing.T, pod) {}, false},
		{"the path of the first is gone", func(t *testing.T, first pod) {
			enter(t, first)
			first.drop()
		}, true},
		{"the path of the first leads to another", func(t *testing.T, first pod) {
			enter(t, first)
			if err := unix.Unmount(first.path, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			if err := bindNewNetns(first.path); err != nil {
				t.Fatal(err)
			}
		}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, links := newOptions(t, 10)
			first, second := newPod(t, "10.9.0.1/32"), newPod(t, "10.9.0.2/32")
			r := mustEnrol(t, o, Pod{Name: "a/b", Netns: first.path})
			before := mustList(t, o)
			test.then(t, first)
			got, err := Enrol(t.Context(), o, Pod{Name: "a/b", Netns: second.path})
			if test.free {
				if err != nil || !got.Changed {
					t.Errorf("%+v, %v", got, err)
				}
				if all := mustList(t, o); len(all) != 1 || all[0].Cookie != got.Cookie {
					t.Errorf("enrolled %+v, not cookie %d", all, got.Cookie)
				}
			} else {
				if err == nil || !strings.Contains(err.Error(), fmt.Sprint(first.path, " ")) ||
					!strings.Contains(err.Error(), fmt.Sprint(r.Cookie)) {
					t.Errorf("error %v", err)
				}
				if after := mustList(t, o); len(after) != 1 || after[0] != before[0] {
					t.Errorf("was %+v, is %+v", before, after)
				}
				if again := mustEnrol(t, o, Pod{Name: "a/b", Netns: first.path}); again.Changed {
					t.Error("the first is not as it was")
				}
			}
			if wrong := wrongWith(t, o, links, "a/b"); len(wrong) > 0 {
				t.Error(wrong)
			}
		})
	}
}

// Two namespaces that take one name at once do not both get it. At worst neither does, and both are told of the other.
func TestNameTakenAtOnce(t *testing.T) {
	o, links := newOptions(t, 10)
	first, second := newPod(t, "10.9.0.1/32"), newPod(t, "10.9.0.2/32")
	for round := range 20 {
		failed := make(chan error, 2)
		for _, p := range []pod{first, second} {
			go func() {
				_, err := Enrol(t.Context(), o, Pod{Name: "a/b", Netns: p.path})
				failed <- err
			}()
		}
		errs := 0
		for range 2 {
			if err := <-failed; err != nil {
				errs++
			}
		}
		name := "a/b"
		if errs == 2 {
			name = ""
		}
		if wrong := wrongWith(t, o, links, name); errs == 0 || len(wrong) > 0 {
			t.Fatalf("round %d: %d were refused; %q", round, errs, wrong)
		}
		if _, err := Withdraw(t.Context(), o, Pod{Name: "a/b"}); err != nil {
			t.Fatal(err)
		}
	}
}
