// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Health is what Check found. The zero value is health.
type Health struct {
	// Gone are workloads whose network namespace is no more. Its cookie never comes back, so nothing can use them.
	Gone []Workload
	// Broken are workloads that lost a program. They are enrolled, but not governed as they should be.
	Broken []Broken
	// Stray are cookies of namespaces of which only a part of an enrolment is there.
	Stray []uint64
}

// Broken is a workload that is not what it should be.
type Broken struct {
	Workload
	Why string
}

// Well reports whether there is nothing to mend.
func (h Health) Well() bool { return len(h.Gone)+len(h.Broken)+len(h.Stray) == 0 }

// Check compares workloads with what the kernel has of them. It changes nothing; while pods are enrolled or withdrawn
// it may find parts of them.
func Check(o Options) (Health, error) {
	t, err := read(o.Maps)
	if err != nil {
		return Health{}, err
	}
	return check(o, t)
}

func check(o Options, t table) (Health, error) {
	var h Health
	var f finder
	for _, w := range t.workloads {
		links, err := o.Links.Attached(linksID(w.Cookie))
		if err != nil {
			return Health{}, err
		}
		gone, why := w.compare(links, &f)
		if gone {
			h.Gone = append(h.Gone, w)
		} else if why != "" {
			h.Broken = append(h.Broken, Broken{w, why})
		}
	}
	for cookie := range t.strays {
		h.Stray = append(h.Stray, cookie)
	}
	pods, err := o.Links.Pods()
	if err != nil {
		return Health{}, err
	}
	for _, id := range pods {
		cookie, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			continue // not of this package's making
		}
		if _, known := t.strays[cookie]; !known && !t.cookies[cookie] {
			h.Stray = append(h.Stray, cookie)
		}
	}
	return h, nil
}

// compare says whether the namespace of a workload is gone, and if it is not, what it lacks.
func (w Workload) compare(links []Link, f *finder) (gone bool, why string) {
	var lookup, tcx bool
	for _, l := range links {
		switch l.Hook {
		case hookLookup():
			lookup = !l.Defunct
		case hookTcx():
			tcx = !l.Defunct && l.Interface == w.Interface
		}
	}
	switch {
	case !lookup:
		why = hookLookup() + " is not attached to its namespace"
		ns, err := f.open(w)
		if err != nil {
			if errors.Is(err, errGone) {
				return true, ""
			}
			return false, fmt.Sprintf("%s, and whether that is gone cannot be told: %v", why, err)
		}
		ns.Close()
		return false, why
	case w.SourceCheck && !tcx:
		return false, hookTcx() + " is not attached to its interface"
	}
	return false, ""
}

// Mended is one thing that Mend did, or could not do.
type Mended struct {
	Workload Workload // only its cookie is known of strays
	Done     string   // "withdrawn", "attached again", "removed"
	Err      error    // why it could not be done; the workload is as it was
}

// Mend withdraws workloads that are gone, attaches again what others lost, and removes strays. The caller keeps
// everybody else from enrolling and withdrawing meanwhile, or what they have half done would be taken for a stray.
func Mend(ctx context.Context, o Options) ([]Mended, error) {
	t, err := read(o.Maps)
	if err != nil {
		return nil, err
	}
	h, err := check(o, t)
	if err != nil {
		return nil, err
	}
	var all []Mended
	for _, w := range h.Gone {
		_, err := withdraw(ctx, o, w.Cookie)
		all = append(all, Mended{w, "withdrawn", err})
	}
	for _, b := range h.Broken {
		all = append(all, Mended{b.Workload, "attached again", attachAgain(ctx, o, b)})
	}
	for _, cookie := range h.Stray {
		err := errors.Join(removeAll(o.Maps, cookie, t.strays[cookie]), o.Links.Detach(ctx, linksID(cookie)))
		all = append(all, Mended{Workload{Cookie: cookie}, "removed", err})
	}
	return all, ctx.Err()
}

// attachAgain enrols a workload anew as what it is.
func attachAgain(ctx context.Context, o Options, b Broken) error {
	var f finder
	ns, err := f.open(b.Workload)
	if err != nil {
		return fmt.Errorf("%s: %w", b.Why, err)
	}
	defer ns.Close()
	pod := Pod{Name: b.Name, Netns: b.Netns} // by whichever path it was found: its own is what a withdrawal will name
	name, err := nameOf(pod)
	if err != nil {
		return err
	}
	o.SourceCheck, o.Canary = b.SourceCheck, b.Canary
	if _, err := enrol(ctx, o, pod, name, ns); err != nil {
		return fmt.Errorf("%s: %w", b.Why, err)
	}
	return nil
}
