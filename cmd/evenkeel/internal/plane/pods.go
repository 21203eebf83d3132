// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"context"

	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Links offers the links of pods as enrolment wants them.
func Links(pods *upgrade.Pods) enrol.Links { return links{pods} }

type links struct{ pods *upgrade.Pods }

func (l links) Attach(ctx context.Context, a enrol.Attachment) error {
	return l.pods.Attach(ctx, upgrade.Target{Pod: a.Pod, Hook: a.Hook, Netns: a.Netns, Interface: a.Interface})
}

func (l links) Attached(pod string) ([]enrol.Link, error) {
	all, err := l.pods.Attached(pod)
	if err != nil {
		return nil, err
	}
	found := make([]enrol.Link, len(all))
	for i, a := range all {
		found[i] = enrol.Link{Hook: a.Hook, Netns: a.Netns, Interface: a.Interface, Defunct: a.Defunct}
	}
	return found, nil
}

func (l links) Detach(ctx context.Context, pod string, hooks ...string) error {
	return l.pods.Detach(ctx, pod, hooks...)
}

func (l links) Pods() ([]string, error) { return l.pods.List() }
