// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/evenkeel/evenkeel/bpf"
)

// Options say with what a pod is enrolled or withdrawn.
type Options struct {
	Maps  Maps
	Links Links
	// SourceCheck drops packets that leave the pod with an address that is not its own. It needs the pod's veth to be
	// in the caller's network namespace. The flag has no meaning for Withdraw, as the next.
	SourceCheck bool
	// OtherBalancer finds out what [Facts] has under that name: it is a fact of the node, the same for all pods. Nil finds
	// none. Withdraw does not ask.
	OtherBalancer func() (string, error)
	// Canary gives the pod every canary generation.
	Canary bool
}

// Pod is a pod of this node.
type Pod struct {
	Name  string // "namespace/name"
	Netns string // path of the file of its network namespace
	Facts Facts
}

// Result is what a pod was enrolled as.
type Result struct {
	Cookie uint64
	// IP4 and IP6 are the addresses that the pod is known by, the zero Addr where it has none of that family. Ignored
	// are its other addresses of global scope; packets from them fail a source check.
	IP4, IP6 netip.Addr
	Ignored  []netip.Addr
	// Interface is the pod's interface as the pod names it, HostInterface the index of its other end on the node; 0 if
	// that was not found.
	Interface     string
	HostInterface int
	// Changed is false if the pod was enrolled in just this way before.
	Changed bool
}

// Enrol makes a pod a workload. Its programs are attached before the data plane knows it; if any step fails, a pod that
// was not enrolled before is left as it was. Of a pod that is enrolled only differences are written, so Enrol can be
// repeated, to tell the data plane of a changed address for one.
//
// It returns a *RefusedError if a rule forbids it, a *FullError if there is no room. Sockets that the pod has already
// opened go on as they are; what they connect to from now on is governed.
func Enrol(ctx context.Context, o Options, pod Pod) (_ Result, err error) {
	if err := CheckName(pod.Name); err != nil {
		return Result{}, err
	}
	if o.OtherBalancer != nil {
		balancer, err := o.OtherBalancer()
		if err != nil {
			return Result{}, fmt.Errorf("enrol pod %s: %w", pod.Name, err)
		}
		pod.Facts.OtherBalancer = balancer
	}
	if err := Decide(pod.Name, pod.Facts); err != nil {
		return Result{}, err
	}
	if pod.Netns, err = filepath.Abs(pod.Netns); err != nil {
		return Result{}, err
	}
	name, err := nameOf(pod)
	if err != nil {
		return Result{}, err
	}
	ns, err := openNetns(pod.Netns)
	if err != nil {
		return Result{}, fmt.Errorf("enrol pod %s: %w", pod.Name, err)
	}
	defer ns.Close()
	result, err := enrolNamespace(ctx, o, pod, name, ns)
	var refused *RefusedError
	if err != nil && !errors.As(err, &refused) {
		err = fmt.Errorf("enrol pod %s: %w", pod.Name, err)
	}
	return result, err
}

// patience is how long another process may work on a pod that this one wants to enrol or to withdraw.
const patience = 10 * time.Second

func enrolNamespace(
	ctx context.Context, o Options, pod Pod, name *bpf.MeshWorkloadName, ns *os.File,
) (_ Result, err error) {
	node, err := isNode(ns)
	if err != nil {
		return Result{}, err
	}
	if node {
		return Result{}, Decide(pod.Name, Facts{HostNetwork: true})
	}
	cookie, err := cookieOf(ns)
	if err != nil {
		return Result{}, err
	}
	links, err := o.lock(ctx, cookie, patience)
	if err != nil {
		return Result{}, err
	}
	result, predecessors, err := enrol(ctx, o, links, name, ns)
	err = errors.Join(err, links.Close())
	// Only now, for whoever has the lock of one pod must not wait for that of another.
	for _, cookie := range predecessors {
		err = errors.Join(err, withdrawPredecessor(ctx, o, cookie, pod.Name))
	}
	if err != nil {
		return Result{}, err
	}
	return result, nil
}

// enrol does it, under the lock of the pod. It returns the cookies of namespaces that had the pod's name before.
func enrol(
	ctx context.Context, o Options, links PodLinks, name *bpf.MeshWorkloadName, ns *os.File,
) (_ Result, predecessors []uint64, err error) {
	n, err := look(ns)
	if err != nil {
		return Result{}, nil, err
	}
	if o.SourceCheck && n.host == 0 {
		return Result{}, nil, fmt.Errorf("its source addresses cannot be checked: %s; leave that check to the primary CNI "+
			"with --source-check=false", n.hostNote)
	}
	old, err := lookup[bpf.MeshWorkload](o.Maps.Workloads, byNetns(n.cookie))
	if err != nil {
		return Result{}, nil, fmt.Errorf("read map workloads: %w", err)
	}
	named, err := lookup[bpf.MeshWorkloadName](o.Maps.Names, n.cookie)
	if err != nil {
		return Result{}, nil, fmt.Errorf("read map workload_names: %w", err)
	}
	if old != nil && named != nil && named.Pod != name.Pod {
		return Result{}, nil, fmt.Errorf("namespace %s is enrolled as pod %s: withdraw that one first", text(name.Netns[:]),
			text(named.Pod[:]))
	}
	e := &enrolment{Options: o, network: n, links: links, old: old}
	if err := e.attach(ctx, ns); err != nil {
		return Result{}, nil, errors.Join(err, e.undo())
	}
	changed, predecessors, err := e.write(name)
	if err != nil {
		return Result{}, nil, errors.Join(err, e.undo())
	}
	if !o.SourceCheck {
		// Only now: as long as the entry said that sources are checked, they were.
		if err := links.Detach(hookTcx()); err != nil {
			return Result{}, nil, err
		}
	}
	return Result{
		Cookie: n.cookie, IP4: n.ip4, IP6: n.ip6, Ignored: n.ignored, Interface: n.name, HostInterface: n.host,
		Changed: changed || len(predecessors) > 0,
	}, predecessors, nil
}

// enrolment is the work on one pod.
type enrolment struct {
	Options
	*network
	links PodLinks
	old   *bpf.MeshWorkload // nil if it is not enrolled
}

// write tells the data plane, with the entry that publishes last. What is there already is not written. It returns the
// namespaces that had the name before.
func (e *enrolment) write(name *bpf.MeshWorkloadName) (changed bool, predecessors []uint64, err error) {
	value := e.value()
	if e.SourceCheck {
		if changed, err = putNew(e.Maps.Workloads, mapWorkloads, byInterface(uint32(e.host)), value); err != nil {
			return false, nil, err
		}
	}
	named, err := putNew(e.Maps.Names, mapNames, e.cookie, *name)
	if err != nil {
		return false, nil, err
	}
	// After the name is there: of two namespaces that take one at once, each or at least the second sees the other, and of
	// two pods that take the last place none or one gets it.
	if predecessors, err = e.bearers(name); err != nil {
		return false, nil, err
	}
	published, err := putNew(e.Maps.Workloads, mapWorkloads, byNetns(e.cookie), value)
	if err != nil {
		return false, nil, err
	}
	if e.old != nil && (e.old.Interface != uint32(e.host) || !e.SourceCheck) {
		if err := dropInterface(e.Maps, e.cookie, e.old.Interface); err != nil {
			return false, nil, err
		}
	}
	return changed || named || published, predecessors, nil
}

// value is the entry of the pod. A pod that is enrolled stays the same workload whatever changes about it; one that
// comes back is another.
func (e *enrolment) value() bpf.MeshWorkload {
	v := bpf.MeshWorkload{
		Ip4: bpf.AddressOf(e.ip4), Ip6: bpf.AddressOf(e.ip6), Netns: e.cookie, Interface: uint32(e.host),
	}
	if e.old != nil {
		v.Incarnation = e.old.Incarnation
	}
	for v.Incarnation == 0 {
		v.Incarnation = rand.Uint32()
	}
	if e.SourceCheck {
		v.Flags |= uint32(bpf.MeshWorkloadFlagWORKLOAD_SOURCE_CHECK)
	}
	if e.Canary {
		v.Flags |= uint32(bpf.MeshWorkloadFlagWORKLOAD_CANARY)
	}
	return v
}

// undo takes back what an enrolment that failed has done. One that was there before stays, with the links it has.
func (e *enrolment) undo() error {
	if e.old != nil {
		return nil
	}
	return errors.Join(removeAll(e.Maps, e.cookie, uint32(e.host)), e.links.Detach())
}
