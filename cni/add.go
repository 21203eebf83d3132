// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/engine/expedite"
)

// add makes the pod of a sandbox a workload if that was decided, or fails, and passes on what it was given.
func (p *Plugin) add(ctx context.Context, c *call) (err error) {
	result, err := c.result()
	if err != nil {
		return err
	}
	pod, err := parsePod(c.Args)
	if err != nil {
		return err
	}
	if pod != nil {
		if err := p.admit(ctx, c, *pod); err != nil {
			return err
		}
	}
	p.result = result
	return nil
}

// admit records a pod's attachment, and enrols the pod if it has to be in the mesh. If it fails nothing is left.
func (p *Plugin) admit(ctx context.Context, c *call, pod pod) (err error) {
	cookie, err := enrol.Cookie(c.Netns)
	if err != nil {
		return types.NewError(types.ErrInvalidNetNS, "CNI_NETNS", err.Error())
	}
	decision, err := decide(c.Conf, pod)
	if err != nil && !c.exempt(pod.namespace) {
		return types.NewError(types.ErrIOFailure,
			fmt.Sprintf("whether pod %s has to be in the mesh is not known: start the agent", pod), err.Error())
	}
	mine, err := c.records.get(c.ContainerID, c.IfName)
	if err == nil {
		err = c.records.put(Attachment{
			Network: c.Name, Container: c.ContainerID, Interface: c.IfName,
			Pod: pod.String(), UID: pod.uid, Netns: c.Netns, Cookie: cookie,
		})
	}
	if err != nil {
		return types.NewError(types.ErrIOFailure, "record the attachment", err.Error())
	}
	if decision.Verdict != Mesh {
		return nil
	}
	err = p.enrol(ctx, c, pod)
	if errors.Is(err, ErrNotServing) && (decision.Critical || c.exempt(pod.namespace)) {
		return nil // the node needs it to boot; the agent takes it in later
	}
	if err != nil && mine == nil {
		err = errors.Join(err, c.records.remove(c.ContainerID, c.IfName))
	}
	return describe(pod, err)
}

func (p *Plugin) enrol(ctx context.Context, c *call, pod pod) error {
	o, closeAll, err := p.Plane.Open(ctx, c.PinDir)
	if err != nil {
		return err
	}
	o.SourceCheck = c.sourceCheck()
	return errors.Join(expedite.Kernel().During(func() error {
		_, err := enrol.Enrol(ctx, o, enrol.Pod{Name: pod.String(), Netns: c.Netns})
		return err
	}), closeAll())
}

// describe gives an error the code that tells a runtime what to do.
func describe(pod pod, err error) error {
	var refused *enrol.RefusedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return types.NewError(codeRefused, fmt.Sprintf("pod %s has to be in the mesh, and cannot be", pod), refused.Detail)
	case errors.Is(err, ErrNotServing), errors.Is(err, context.DeadlineExceeded):
		return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("pod %s has to be in the mesh: start the agent", pod),
			err.Error())
	}
	return types.NewError(codeEnrol, fmt.Sprintf("pod %s has to be in the mesh", pod), err.Error())
}
