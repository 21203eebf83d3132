// SPDX-License-Identifier: Apache-2.0

package enrolment

import (
	"context"

	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Links offers the links of pods as enrolment wants them.
func Links(pods *upgrade.Pods) enrol.Links { return links{pods} }

type links struct{ pods *upgrade.Pods }

func (l links) Lock(ctx context.Context, pod string) (enrol.PodLinks, error) {
	locked, err := l.pods.Lock(ctx, pod)
	if err != nil {
		return nil, err // not a nil *upgrade.Pod in an interface
	}
	return podLinks{locked}, nil
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

func (l links) Pods() ([]string, error) { return l.pods.List() }

type podLinks struct{ pod *upgrade.Pod }

func (l podLinks) Attach(ctx context.Context, a enrol.Attachment) error {
	return l.pod.Attach(ctx, upgrade.Target{Hook: a.Hook, Netns: a.Netns, Interface: a.Interface})
}

func (l podLinks) Detach(hooks ...string) error { return l.pod.Detach(hooks...) }
func (l podLinks) Close() error                 { return l.pod.Close() }
