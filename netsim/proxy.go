// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/netsim/ambient"
)

// In a lab whose data plane is a proxy, this is what a CNI agent and a control plane do on a node: rules in the pods'
// namespaces, and a configuration of the node's proxy.

func (l *Lab) proxyConfig(node string) string {
	return filepath.Join(l.paths.nodeDir(node), "ambient.json")
}

// makeAuthority makes what the lab's proxies have their certificates from.
func (l *Lab) makeAuthority() error {
	if err := makeDirectory(l.paths.authority(), 0o700); err != nil {
		return err
	}
	authority, err := ambient.NewAuthority()
	if err != nil {
		return err
	}
	return authority.Write(l.paths.authority())
}

// refuseRedirect returns why a pod's connections cannot be redirected, or nothing.
func refuseRedirect(s *state, pod *podState) string {
	document := pod.document(s)
	if manifest.HostNetwork(document) {
		return "hostNetwork: its network namespace is the node's"
	}
	if sidecar := manifest.Sidecar(document); sidecar != "" {
		return "it has a sidecar: " + sidecar
	}
	return ""
}

// writeProxyConfig writes the configuration of a node's proxy. It tells whether that is another than before.
func (l *Lab) writeProxyConfig(node string) (changed bool, err error) {
	documents, _, err := manifest.ReadPath(l.paths.manifests())
	if err != nil {
		return false, fmt.Errorf("configure proxy of node %s: %w", node, err)
	}
	captured := map[string]bool{}
	here := map[string]*podState{}
	for _, pod := range l.state.Pods {
		if !pod.Spec.Enrol || refuseRedirect(l.state, pod) != "" {
			continue
		}
		captured[pod.Spec.key()] = true
		if pod.Spec.Node == node {
			here[pod.Spec.key()] = pod
		}
	}
	config := &ambient.Config{Node: node, Authority: l.paths.authority(),
		Mesh: ambient.NewMesh(documents, func(pod string) bool { return captured[pod] })}
	for _, w := range config.Mesh.Workloads {
		pod := here[w.Namespace+"/"+w.Name]
		if pod == nil {
			continue
		}
		path := l.paths.podNetns(pod)
		if !isNamespace(path) {
			continue // not yet; whoever makes it enrols the pod
		}
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err != nil {
			return false, fmt.Errorf("look at %s: %w", path, err)
		}
		config.Pods = append(config.Pods, ambient.Pod{Workload: w, Netns: path, Inode: s.Ino})
	}
	text, err := config.Encode()
	if err != nil {
		return false, err
	}
	path := l.proxyConfig(node)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read old configuration of proxy: %w", err)
	}
	if bytes.Equal(old, text) {
		return false, nil
	}
	return true, writeFile(path, text)
}

// redirectPods makes the proxies of nodes know all pods, and then leads the connections of pods to them.
func (l *Lab) redirectPods(ctx context.Context, pods []*podState, done func()) error {
	if err := l.followMesh(ctx); err != nil {
		return err
	}
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for _, pod := range pods {
		if !unenrolled(pod) || running.Err() != nil {
			continue
		}
		group.Go(func() error {
			defer done()
			if pod.Refusal = refuseRedirect(l.state, pod); pod.Refusal != "" {
				return nil
			}
			if err := l.inPod(pod, ambient.Redirect); err != nil {
				return fmt.Errorf("redirect connections of pod %s: %w", pod.Spec.key(), err)
			}
			pod.Enrolled = true
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// releasePods takes the rules of pods away. Their proxies learn of it with the next change of the mesh.
func (l *Lab) releasePods(pods []*podState) error {
	for _, pod := range pods {
		if isNamespace(l.paths.podNetns(pod)) {
			if err := l.inPod(pod, ambient.Release); err != nil {
				return fmt.Errorf("release connections of pod %s: %w", pod.Spec.key(), err)
			}
		}
		pod.Enrolled = false
	}
	return nil
}

func (l *Lab) inPod(pod *podState, fn func() error) error {
	return onThread(func() error {
		if err := enterNamespace(l.paths.podNetns(pod)); err != nil {
			return err
		}
		return fn()
	})
}

// followMesh replaces the proxies that run with another configuration than there is now: they read it once.
func (l *Lab) followMesh(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range l.state.Nodes {
		if n.Agent == nil || !n.Agent.Alive() {
			continue // it will start with the new one
		}
		changed, err := l.writeProxyConfig(n.Spec.Name)
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		if changed {
			group.Go(func() error { return l.succeed(ctx, n, l.state.Agent.Args) })
		}
	}
	return group.Wait()
}

// succeed starts a successor beside a node's proxy and ends that, as ztunnel is upgraded: both listen on the same ports
// until the old one stops to, and that ends when it has drained.
func (l *Lab) succeed(ctx context.Context, n *nodeState, args []string) error {
	old := *n.Agent
	if err := l.startAgent(ctx, n, nil, args); err != nil {
		return fmt.Errorf("start successor of the proxy of node %s: %w", n.Spec.Name, err)
	}
	if err := old.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end proxy of node %s: %w", n.Spec.Name, err)
	}
	if err := old.Wait(ctx); err != nil {
		return fmt.Errorf("wait until the proxy of node %s has drained: %w", n.Spec.Name, err)
	}
	return nil
}

// RestartAgent replaces the agent of a node that runs in the way in which its data plane is upgraded, and returns when
// the new one is ready and the old one has ended. An agent gets SIGTERM, and the next one starts after it; a proxy is
// started beside the old one, which then drains.
func (l *Lab) RestartAgent(ctx context.Context, node string) error {
	unlock, err := l.change()
	if err != nil {
		return err
	}
	defer unlock()
	n := l.state.node(node)
	if n == nil {
		return l.noNode(node)
	}
	if n.Agent == nil || !n.Agent.Alive() {
		return fmt.Errorf("restart agent of node %s: %w: it does not run", node, os.ErrProcessDone)
	}
	if l.state.Dataplane.redirects() {
		err = l.succeed(ctx, n, l.state.Agent.Args)
	} else if err = l.stopAgents(ctx, []*nodeState{n}); err == nil {
		err = l.startAgent(ctx, n, nil, l.state.Agent.Args)
	}
	if err := errors.Join(err, l.state.write(l.paths.state())); err != nil {
		return fmt.Errorf("restart agent of node %s: %w", node, err)
	}
	return nil
}
