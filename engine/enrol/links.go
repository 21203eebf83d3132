// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/evenkeel/evenkeel/bpf"
)

// Links attaches entry programs to single pods and keeps those links when the process ends. Pods are named by the
// cookie of their network namespace in decimal, which is never used twice.
type Links interface {
	// Lock keeps everybody else from the links of a pod until they are closed. It waits for others as long as ctx lives.
	Lock(ctx context.Context, pod string) (PodLinks, error)
	// Attached lists what is attached for a pod.
	Attached(pod string) ([]Link, error)
	// Pods names the pods that have links.
	Pods() ([]string, error)
}

// PodLinks are the links of one pod, under its lock.
type PodLinks interface {
	// Attach attaches a hook; one that is attached in the same place already stays.
	Attach(ctx context.Context, a Attachment) error
	// Detach detaches hooks, all if none is named. What is not attached is no error.
	Detach(hooks ...string) error
	// Close ends the lock, and leaves nothing of it.
	Close() error
}

// Attachment is what to attach for a pod, and where.
type Attachment struct {
	Hook      string
	Netns     int // descriptor of the pod's network namespace; of use to the hook sk_lookup
	Interface int // index of the pod's veth in the namespace of the caller; of use to the hook tcx
}

// Link is a hook of a pod that is attached.
type Link struct {
	Hook      string
	Netns     uint64 // inode of the network namespace of sk_lookup
	Interface int    // index of the interface of tcx
	Defunct   bool   // attached to nothing: that is gone, or somebody detached the link
}

func hookLookup() string { return bpf.Hooks()[bpf.MeshHookHOOK_SK_LOOKUP].Name }
func hookTcx() string    { return bpf.Hooks()[bpf.MeshHookHOOK_TCX].Name }

func linksID(cookie uint64) string { return strconv.FormatUint(cookie, 10) }

// lock makes whatever is done to a pod one change to others: what is read of it, its links and the elements of the maps
// belong together. It waits for them no longer than patience, for one of them may have been stopped.
func (o Options) lock(ctx context.Context, cookie uint64, patience time.Duration) (PodLinks, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience,
		fmt.Errorf("another process has been enrolling or withdrawing it for %v: try again", patience))
	defer cancel()
	return o.Links.Lock(ctx, linksID(cookie))
}

// attach attaches the programs of the pod, and believes it only when it sees them.
func (e *enrolment) attach(ctx context.Context, ns *os.File) error {
	wanted := []Attachment{{Hook: hookLookup(), Netns: int(ns.Fd())}}
	if e.SourceCheck {
		wanted = append(wanted, Attachment{Hook: hookTcx(), Interface: e.host})
	}
	for _, a := range wanted {
		if err := e.links.Attach(ctx, a); err != nil {
			return err
		}
	}
	links, err := e.Links.Attached(linksID(e.cookie))
	if err != nil {
		return err
	}
	if missing := e.missing(links); len(missing) > 0 {
		return fmt.Errorf("%s was attached, but is not: somebody detaches programs of this pod", missing[0])
	}
	return nil
}

// missing returns the hooks that are not attached where they should be.
func (e *enrolment) missing(links []Link) []string {
	var hooks []string
	lookup := func(l Link) bool { return l.Hook == hookLookup() && !l.Defunct && l.Netns == e.inode }
	if !slices.ContainsFunc(links, lookup) {
		hooks = append(hooks, hookLookup())
	}
	tcx := func(l Link) bool { return l.Hook == hookTcx() && !l.Defunct && l.Interface == e.host }
	if e.SourceCheck && !slices.ContainsFunc(links, tcx) {
		hooks = append(hooks, hookTcx())
	}
	return hooks
}
