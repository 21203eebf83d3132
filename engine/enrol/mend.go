// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/evenkeel/evenkeel/bpf"
)

// Health is what Check found. The zero value is health.
type Health struct {
	// Gone are workloads whose network namespace is no more. Its cookie never comes back, so nothing can use them.
	Gone []Workload
	// Broken are workloads that lost a program or an element. They are enrolled, but not governed as they should be.
	Broken []Broken
	// Stray are cookies of namespaces of which only a part of an enrolment is there.
	Stray []uint64
	// Stale are indexes of interfaces that the map still has, but that are no workload's any more.
	Stale []uint32
}

// Broken is a workload that is not what it should be.
type Broken struct {
	Workload
	Why string
}

// Well reports whether there is nothing to mend.
func (h Health) Well() bool { return len(h.Gone)+len(h.Broken)+len(h.Stray)+len(h.Stale) == 0 }

// Check compares workloads with what the kernel has of them. It changes nothing and takes no lock; while pods are
// enrolled or withdrawn it may find parts of them.
func Check(o Options) (Health, error) {
	t, err := read(o.Maps)
	if err != nil {
		return Health{}, err
	}
	return check(o, t)
}

func check(o Options, t table) (Health, error) {
	h := Health{Stale: t.stale}
	var f finder
	for _, w := range t.workloads {
		gone, why, err := o.compare(w, t.interfaces[uint32(w.Interface)], &f)
		switch {
		case err != nil:
			return Health{}, err
		case gone:
			h.Gone = append(h.Gone, w)
		case why != "":
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

// compare says whether the namespace of a workload is gone, and if it is not, what it lacks. What is found under the
// index of its interface is nil if nothing is.
func (o Options) compare(w Workload, found *bpf.MeshWorkload, f *finder) (gone bool, why string, err error) {
	links, err := o.Links.Attached(linksID(w.Cookie))
	if err != nil {
		return false, "", err
	}
	attached := func(hook string, index int) bool {
		return slices.ContainsFunc(links, func(l Link) bool { return l.Hook == hook && !l.Defunct && l.Interface == index })
	}
	switch {
	case !attached(hookLookup(), 0):
		why = hookLookup() + " is not attached to its namespace"
		ns, err := f.open(w)
		if errors.Is(err, errGone) {
			return true, "", nil
		}
		if err != nil {
			return false, fmt.Sprintf("%s, and whether that is gone cannot be told: %v", why, err), nil
		}
		ns.Close()
		return false, why, nil
	case w.Name == "":
		return false, "its name is not known any more", nil
	case w.SourceCheck && !attached(hookTcx(), w.Interface):
		return false, hookTcx() + " is not attached to its interface", nil
	case w.SourceCheck && !w.sameByInterface(found):
		return false, fmt.Sprintf("its sources are not checked: the element of map %s for interface %d is not its own",
			mapWorkloads, w.Interface), nil
	}
	return false, "", nil
}

// sameByInterface reports whether the element under the interface says of a workload what that under the cookie does.
func (w Workload) sameByInterface(found *bpf.MeshWorkload) bool {
	if found == nil {
		return false
	}
	other := workloadOf(found.Netns, *found)
	other.Name, other.Netns = w.Name, w.Netns
	return other == w
}

// Mended is one thing that Mend did, or could not do.
type Mended struct {
	Workload Workload // only its cookie is known of strays
	Done     string   // "withdrawn", "attached again", "removed"
	Err      error    // why it could not be done; the workload is as it was
}

// mendPatience is how long another process may work on a pod until Mend goes on to the next.
const mendPatience = time.Second

// Mend withdraws workloads that are gone, attaches again what others lost, and removes strays. What looks wrong may be
// what another process has half done, so it looks at each again under the lock of that pod.
func Mend(ctx context.Context, o Options) ([]Mended, error) {
	t, err := read(o.Maps)
	if err != nil {
		return nil, err
	}
	h, err := check(o, t)
	if err != nil {
		return nil, err
	}
	suspects := make([]Workload, 0, len(h.Gone)+len(h.Broken)+len(h.Stray))
	suspects = append(suspects, h.Gone...)
	for _, b := range h.Broken {
		suspects = append(suspects, b.Workload)
	}
	for _, cookie := range h.Stray {
		suspects = append(suspects, Workload{Cookie: cookie})
	}
	var all []Mended
	for _, w := range suspects {
		if ctx.Err() != nil {
			break
		}
		done, err := mend(ctx, o, w)
		if done != "" || err != nil {
			all = append(all, Mended{w, done, err})
		}
	}
	for _, index := range h.Stale {
		if ctx.Err() != nil {
			break
		}
		w := Workload{Cookie: t.interfaces[index].Netns, Interface: int(index)}
		done, err := removeStale(ctx, o, w)
		if done != "" || err != nil {
			all = append(all, Mended{w, done, err})
		}
	}
	return all, ctx.Err()
}

// mend mends one workload, or what is stray of one. It returns "" if there is nothing to do any more.
func mend(ctx context.Context, o Options, suspect Workload) (done string, err error) {
	links, err := o.lock(ctx, suspect.Cookie, mendPatience)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, links.Close()) }()
	w, found, err := readOne(o.Maps, suspect.Cookie)
	if err != nil {
		return "", err
	}
	if w == nil {
		return removeStray(o, links, suspect)
	}
	var f finder
	gone, why, err := o.compare(*w, found, &f)
	switch {
	case err != nil || !gone && why == "":
		return "", err
	case gone:
		_, err := withdraw(o, links, w.Cookie)
		return "withdrawn", err
	}
	if err := attachAgain(ctx, o, links, *w, &f); err != nil {
		return "", fmt.Errorf("%s: %w", why, err)
	}
	return "attached again", nil
}

// removeStray removes what is there of a workload that is none.
func removeStray(o Options, links PodLinks, stray Workload) (done string, err error) {
	name, err := lookup[bpf.MeshWorkloadName](o.Maps.Names, stray.Cookie)
	if err != nil {
		return "", fmt.Errorf("read map workload_names: %w", err)
	}
	attached, err := o.Links.Attached(linksID(stray.Cookie))
	if err != nil {
		return "", err
	}
	err = errors.Join(removeAll(o.Maps, stray.Cookie, 0), links.Detach())
	if name == nil && len(attached) == 0 {
		return "", err // an empty directory, or what another has finished meanwhile
	}
	return "removed", err
}

// removeStale removes the element of an interface, if it still is not the one of its workload.
func removeStale(ctx context.Context, o Options, stale Workload) (done string, err error) {
	links, err := o.lock(ctx, stale.Cookie, mendPatience)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, links.Close()) }()
	w, _, err := readOne(o.Maps, stale.Cookie)
	if err != nil || w != nil && w.SourceCheck && w.Interface == stale.Interface {
		return "", err
	}
	found, err := lookup[bpf.MeshWorkload](o.Maps.Workloads, byInterface(uint32(stale.Interface)))
	if err != nil || found == nil || found.Netns != stale.Cookie {
		return "", err
	}
	return "removed", remove(o.Maps.Workloads, mapWorkloads, byInterface(uint32(stale.Interface)))
}

// attachAgain enrols a workload anew as what it is.
func attachAgain(ctx context.Context, o Options, links PodLinks, w Workload, f *finder) error {
	if w.Name == "" {
		return errors.New("enrol it again, by its namespace and its name")
	}
	ns, err := f.open(w)
	if err != nil {
		return err
	}
	defer ns.Close()
	// Whichever path it was found by: its own is what a withdrawal will name.
	name, err := nameOf(Pod{Name: w.Name, Netns: w.Netns})
	if err != nil {
		return err
	}
	o.SourceCheck, o.Canary = w.SourceCheck, w.Canary
	_, _, err = enrol(ctx, o, links, name, ns)
	return err
}
