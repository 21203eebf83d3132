// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// announcePatience is how long pods that go wait at most until agents know: one that hangs has no say.
const announcePatience = time.Second

// announce takes pods that go out of what agents read, and returns once those that run have taken them out of what they
// serve: as in a cluster, no new connection is led to a pod that is about to end. It returns the text that it wrote,
// and whether that was a change.
func (l *Lab) announce(ctx context.Context, d *difference) (pods []byte, changed bool, err error) {
	if len(d.oldPods) == 0 || d.before.Dataplane != Evenkeel {
		return nil, false, nil
	}
	kept := d.kept(d.after)
	pods, err = encodeAll(kept.Pods, func(pod *podState) any { return pod.document(kept) })
	if err != nil {
		return nil, false, err
	}
	begin := time.Now()
	n, err := manifests{podsFile: pods}.write(l.paths.manifests())
	if err != nil || n == 0 {
		return pods, false, err
	}
	waiting, cancel := context.WithTimeout(ctx, announcePatience)
	defer cancel()
	var group errgroup.Group
	for _, node := range d.before.Nodes {
		if node.Agent != nil && node.Agent.Alive() {
			group.Go(func() error {
				awaitRead(waiting, l.adminSocket(node.Spec.Name), begin)
				return nil
			})
		}
	}
	return pods, true, group.Wait()
}

// awaitRead returns once an agent has applied what it read of its sources after an instant, does not answer, or ctx ends.
func awaitRead(ctx context.Context, socket string, after time.Time) {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		read, err := lastRead(ctx, &client)
		if err != nil || read.After(after) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lastRead is when all sources of an agent were last found to be good and applied.
func lastRead(ctx context.Context, client *http.Client) (time.Time, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/status", nil)
	if err != nil {
		return time.Time{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return time.Time{}, err
	}
	defer response.Body.Close()
	var status struct{ Sources []struct{ Read time.Time } }
	if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
		return time.Time{}, fmt.Errorf("decode status: %w", err)
	}
	var last time.Time
	for i, s := range status.Sources {
		if i == 0 || s.Read.Before(last) {
			last = s.Read
		}
	}
	return last, nil
}
