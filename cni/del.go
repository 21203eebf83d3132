// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/engine/expedite"
)

// del undoes add. It never fails: an error would end the chain, and what the plugins before this one hold, addresses
// for one, would be lost. What could not be undone keeps its record, by which GC, the agent, or the next DEL does it.
func (p *Plugin) del(ctx context.Context, c *call) error {
	if err := p.leave(ctx, c); err != nil {
		fmt.Fprintf(p.Stderr, "%s: %s of container %s is to be collected later: %v\n", Type, c.IfName, c.ContainerID, err)
	}
	return nil
}

func (p *Plugin) leave(ctx context.Context, c *call) error {
	record, err := c.records.get(c.ContainerID, c.IfName)
	if err != nil {
		return err
	}
	if record == nil {
		return errors.Join(p.leaveUnseen(ctx, c), c.records.remove(c.ContainerID, c.IfName))
	}
	return p.drop(ctx, c, *record)
}

// drop withdraws the workload of an attachment, unless its sandbox has another attachment, and then forgets it.
func (p *Plugin) drop(ctx context.Context, c *call, t Attachment) error {
	all, err := c.records.of(t.Container)
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Cookie == t.Cookie && other.Interface != t.Interface {
			return c.records.remove(t.Container, t.Interface)
		}
	}
	err = p.during(ctx, c, func(o enrol.Options) error {
		_, err := enrol.WithdrawCookie(ctx, o, t.Cookie, t.Pod)
		return err
	})
	if err != nil {
		return err
	}
	return c.records.remove(t.Container, t.Interface)
}

// leaveUnseen withdraws the pod of a sandbox that ADD was never called for: the agent has enrolled it, or it was
// enrolled by hand. Where the runtime no longer has the namespace's path only those are withdrawn that are gone: the
// same name may be that of the pod's next sandbox.
func (p *Plugin) leaveUnseen(ctx context.Context, c *call) error {
	pod, err := parsePod(c.Args)
	if err != nil || pod == nil {
		return nil // of no pod, so it cannot have been enrolled
	}
	return p.during(ctx, c, func(o enrol.Options) error {
		if c.Netns != "" {
			if cookie, err := enrol.Cookie(c.Netns); err == nil {
				_, err = enrol.WithdrawCookie(ctx, o, cookie, pod.String())
				return err
			}
		}
		return enrol.WithdrawGone(ctx, o, pod.String())
	})
}

// during opens the data plane and does something with it. Where none serves there is nothing to do.
func (p *Plugin) during(ctx context.Context, c *call, do func(enrol.Options) error) error {
	o, closeAll, err := p.Plane.Open(ctx, c.PinDir)
	if errors.Is(err, ErrNotServing) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(expedite.Kernel().During(func() error { return do(o) }), closeAll())
}
