// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// status says whether ADD would succeed for a pod that has to be in the mesh, and whether pods that are in it lack
// something.
func (p *Plugin) status(_ context.Context, c *call) error {
	lacking, err := p.Plane.Lacking(c.PinDir)
	switch {
	case errors.Is(err, ErrNotServing):
		return types.NewError(types.ErrPluginNotAvailable, "no generation serves: start the agent", err.Error())
	case err != nil:
		return types.NewError(types.ErrPluginNotAvailable, "the data plane cannot be looked at", err.Error())
	case len(lacking) > 0:
		return types.NewError(types.ErrLimitedConnectivity, "the data plane is not whole: start the agent, which restores "+
			"what it can", strings.Join(lacking, "; "))
	}
	return nil
}
