// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// meanwhile runs do while somebody else is in the middle of his work on a pod, until do is done or waits for him.
func meanwhile(links *kernelLinks, do func() error) (result <-chan error) {
	done := make(chan error, 1)
	links.between = func() error {
		over := make(chan struct{})
		go func() {
			done <- do()
			close(over)
		}()
		select {
		case <-over:
		case <-links.waiting:
		}
		return nil
	}
	return done
}

// wrongWith says what is wrong with what is enrolled: the name is "" if nothing is to be.
func wrongWith(t *testing.T, o Options, links *kernelLinks, name string) []string {
	t.Helper()
	var wrong []string
	if h := mustCheck(t, o); !h.Well() {
		wrong = append(wrong, fmt.Sprintf("found %+v", h))
	}
	all := mustList(t, o)
	switch {
	case name == "" && (elements(t, o.Maps) != 0 || len(links.links) != 0):
		wrong = append(wrong, fmt.Sprintf("%d elements and %d links are left", elements(t, o.Maps), len(links.links)))
	case name != "" && (len(all) != 1 || all[0].Name != name):
		wrong = append(wrong, fmt.Sprintf("enrolled %+v, not %s", all, name))
	}
	return wrong
}

// TestOneAtATime: enrolling and withdrawing a pod are one change each to all others that do it. The control is a lock
// that keeps nobody out.
func TestOneAtATime(t *testing.T) {
	refused := errors.New("it was told to fail")
	tests := []struct {
		name string
		do   func(t *testing.T, o Options, links *kernelLinks, p pod) (wrong []string)
	}{
		{"withdraw while it is enrolled", func(t *testing.T, o Options, links *kernelLinks, p pod) []string {
			done := meanwhile(links, func() error {
				_, err := Withdraw(t.Context(), o, Pod{Name: "a/b", Netns: p.path})
				return err
			})
			mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
			if err := <-done; err != nil {
				t.Error(err)
			}
			return wrongWith(t, o, links, "")
		}},
		{"enrol under two names", func(t *testing.T, o Options, links *kernelLinks, p pod) []string {
			done := meanwhile(links, func() error {
				_, err := Enrol(t.Context(), o, Pod{Name: "a/c", Netns: p.path})
				return err
			})
			mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
			wrong := wrongWith(t, o, links, "a/b")
			if err := <-done; err == nil || !strings.Contains(err.Error(), "a/b") {
				wrong = append(wrong, fmt.Sprintf("under another name: %v", err))
			}
			return wrong
		}},
		{"undo while another enrols it", func(t *testing.T, o Options, links *kernelLinks, p pod) []string {
			done := meanwhile(links, func() error {
				_, err := Enrol(t.Context(), o, Pod{Name: "a/b", Netns: p.path})
				return err
			})
			before := links.between
			links.between = func() error { return errors.Join(before(), refused) }
			if _, err := Enrol(t.Context(), o, Pod{Name: "a/b", Netns: p.path}); !errors.Is(err, refused) {
				t.Errorf("the first: %v", err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			return wrongWith(t, o, links, "a/b")
		}},
	}
	for _, test := range tests {
		for _, free := range []bool{false, true} {
			name := test.name
			if free {
				name += ", control"
			}
			t.Run(name, func(t *testing.T) {
				o, links := newOptions(t, 10)
				links.free = free
				wrong := test.do(t, o, links, newPod(t, "10.9.0.1/32"))
				if free && len(wrong) == 0 {
					t.Error("without a lock nothing went wrong")
				} else if !free && len(wrong) > 0 {
					t.Error(wrong)
				}
			})
		}
	}
}

// A process that was stopped in the middle does not keep others waiting for ever.
func TestLockHasAnEnd(t *testing.T) {
	o, links := newOptions(t, 10)
	p := newPod(t, "10.9.0.1/32")
	r := mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
	held, err := links.Lock(t.Context(), linksID(r.Cookie))
	if err != nil {
		t.Fatal(err)
	}
	if err := links.Detach(t.Context(), linksID(r.Cookie), hookTcx()); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if done := mustMend(t, o); len(done) != 1 || !strings.Contains(done[0], "another process") {
		t.Errorf("done %q", done)
	}
	if took := time.Since(begin); took > 10*mendPatience {
		t.Errorf("it took %v", took)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("told to end"))
	if _, err := Withdraw(ctx, o, Pod{Name: "a/b", Netns: p.path}); err == nil || !strings.Contains(err.Error(), "told to end") {
		t.Errorf("withdraw: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if done := mustMend(t, o); len(done) != 1 || done[0] != "a/b attached again" {
		t.Errorf("done %q", done)
	}
}

// What looks wrong from outside may be an enrolment that is under way: mending waits for it, and leaves it alone.
func TestMendLeavesWhatIsUnderWay(t *testing.T) {
	o, links := newOptions(t, 10)
	p := newPod(t, "10.9.0.1/32")
	mended := make(chan []Mended, 1)
	done := meanwhile(links, func() error {
		if h := mustCheck(t, o); len(h.Stray) != 1 {
			t.Errorf("in the middle of an enrolment there is %+v", h)
		}
		all, err := Mend(t.Context(), o)
		mended <- all
		return err
	})
	mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
	if err := <-done; err != nil {
		t.Error(err)
	}
	if all := <-mended; len(all) != 0 {
		t.Errorf("mended %+v", all)
	}
	if wrong := wrongWith(t, o, links, "a/b"); len(wrong) > 0 {
		t.Error(wrong)
	}
}
