// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/evenkeel/evenkeel/engine/enrol"
)

// check compares a sandbox with what was decided about its pod, and names what is missing.
func (p *Plugin) check(ctx context.Context, c *call) error {
	if _, err := c.result(); err != nil {
		return err
	}
	pod, err := parsePod(c.Args)
	if err != nil || pod == nil {
		return err
	}
	decision, err := decide(c.Conf, *pod)
	if err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("whether pod %s has to be in the mesh is not known", pod),
			err.Error())
	}
	if decision.Verdict != Mesh {
		return nil
	}
	cookie, err := enrol.Cookie(c.Netns)
	if err != nil {
		return types.NewError(types.ErrInvalidNetNS, "CNI_NETNS", err.Error())
	}
	record, err := c.records.get(c.ContainerID, c.IfName)
	if err != nil {
		return types.NewError(types.ErrIOFailure, "read the record of the attachment", err.Error())
	}
	if record == nil {
		return missing(*pod, fmt.Sprintf("the record of %s of container %s", c.IfName, c.ContainerID))
	}
	o, closeAll, err := p.Plane.Open(ctx, c.PinDir)
	if err != nil {
		return describe(*pod, err)
	}
	w, why, err := enrol.CheckCookie(o, cookie)
	if err = errors.Join(err, closeAll()); err != nil {
		return describe(*pod, err)
	}
	switch {
	case w == nil:
		return missing(*pod, "its element of map workloads: it is not enrolled")
	case w.Name != "" && w.Name != pod.String():
		return missing(*pod, fmt.Sprintf("its name: its namespace is enrolled as pod %s", w.Name))
	case why != "":
		return missing(*pod, why)
	}
	return nil
}

func missing(pod pod, what string) error {
	return types.NewError(codeEnrol, fmt.Sprintf("pod %s is not in the mesh as it has to be", pod), "missing: "+what)
}
