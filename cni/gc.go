// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/containernetworking/cni/pkg/types"
)

// gc undoes the attachments of a network that the runtime does not know any more, and goes on after one that it cannot
// undo. Attachments of other networks are others' business.
func (p *Plugin) gc(ctx context.Context, c *call) error {
	if c.ValidAttachments == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "without cni.dev/valid-attachments everything would be stale",
			"cni.dev/valid-attachments is missing")
	}
	var valid []types.GCAttachment // null is none, as libcni has it
	if err := json.Unmarshal(c.ValidAttachments, &valid); err != nil {
		return types.NewError(types.ErrDecodingFailure, "cni.dev/valid-attachments cannot be read", err.Error())
	}
	known := make(map[types.GCAttachment]bool, len(valid))
	for _, v := range valid {
		known[v] = true
	}
	all, err := c.records.List()
	if err != nil {
		return types.NewError(types.ErrIOFailure, "list attachments", err.Error())
	}
	var failed []error
	for _, t := range all {
		if t.Network == c.Name && !known[types.GCAttachment{ContainerID: t.Container, IfName: t.Interface}] {
			failed = append(failed, p.drop(ctx, c, t))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return types.NewError(codeEnrol, "not all that is stale could be removed", err.Error())
	}
	return nil
}
