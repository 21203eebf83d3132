// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrExists is returned where a lab of that name is there already.
var ErrExists = errors.New("is there already")

// undoTime is how long it may take to remove what a failed or cancelled act has made.
const undoTime = time.Minute

// Up makes a lab and returns when all agents are ready, all servers listen and all pods that should be are enrolled. If
// anything fails, or the context ends, it removes what it has made. A lab of that name whose owner has ended goes first;
// of any other, whole or not, it returns ErrExists.
func Up(ctx context.Context, t *Topology, options Options) (*Lab, error) {
	options, err := options.complete()
	if err != nil {
		return nil, err
	}
	if err := t.validate(); err != nil { // it may have been changed since it was read
		return nil, err
	}
	ztunnel, err := options.ztunnelFor(t)
	if err != nil {
		return nil, err
	}
	l := &Lab{options: options, agents: map[string]*child{}, state: plan(t, &state{Ztunnel: ztunnel})}
	if l.paths, err = newPaths(t.Name); err != nil {
		return nil, err
	}
	self, err := ProcessOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	if !options.Detached {
		l.state.Owner = &self
	}
	if _, err := l.collect(ctx, l.paths.orphaned); err != nil {
		return nil, fmt.Errorf("remove lab %s, whose owner has ended: %w: evenkeel sim down --name %s tries again", t.Name, err,
			t.Name)
	}
	unlock, err := l.paths.claim()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := l.up(ctx, t, self); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		err = fmt.Errorf("bring up lab %s: %w", t.Name, err)
		if left := l.takeDown(undo); left != nil {
			err = errors.Join(err, fmt.Errorf("undo that: %w: evenkeel sim down --name %s tries again", left, t.Name))
		}
		return nil, err
	}
	return l, nil
}

// claim makes the directory of a lab that is not there yet, and takes its lock.
func (p paths) claim() (unlock func(), err error) {
	for {
		if err := makeDirectory(p.dir(), 0o755); err != nil {
			return nil, err
		}
		unlock, err = p.lock()
		if !errors.Is(err, fs.ErrNotExist) { // else a gc has taken the empty directory for a rest
			break
		}
	}
	if errors.Is(err, ErrBusy) {
		return nil, fmt.Errorf("lab %s %w, and another process is changing it: wait for that", p.lab, ErrExists)
	}
	if err != nil {
		return nil, err
	}
	if err := p.vacant(); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// vacant returns ErrExists if there is a lab, or what is left of one.
func (p paths) vacant() error {
	last, err := p.lastEntry()
	if err != nil {
		return err
	}
	if last == nil {
		return nil
	}
	s, err := p.whole()
	if err != nil {
		return err
	}
	if s == nil {
		return fmt.Errorf("lab %s %w, left halfway by process %d: evenkeel sim down --name %s removes it", p.lab, ErrExists,
			last.By.PID, p.lab)
	}
	return fmt.Errorf("lab %s %w: evenkeel sim apply changes it, evenkeel sim down --name %s removes it", p.lab, ErrExists,
		p.lab)
}

func (l *Lab) up(ctx context.Context, t *Topology, self Process) error {
	if err := l.paths.note(actUp, false, self); err != nil {
		return err
	}
	if err := l.state.write(l.paths.state()); err != nil {
		return err
	}
	if err := l.prepare(); err != nil {
		return err
	}
	if err := l.makeNodeDirectories(l.state.Nodes); err != nil {
		return err
	}
	rs := routers{}
	defer rs.close()
	if err := l.makeNodes(rs); err != nil {
		return err
	}
	var done Changes
	if err := l.fillNodes(ctx, t, rs, &done); err != nil {
		return err
	}
	if err := l.enlist(ctx, l.state.Pods, &done); err != nil {
		return err
	}
	l.state.Up = true
	if err := l.state.write(l.paths.state()); err != nil {
		return err
	}
	return l.paths.note(actUp, true, self)
}

// prepare makes what all nodes and pods of the lab are below.
func (l *Lab) prepare() error {
	if l.state.Dataplane.redirects() {
		if err := l.makeAuthority(); err != nil {
			return err
		}
	}
	if err := mountNamespaces(l.paths.namespaces()); err != nil {
		return err
	}
	if err := mountBPF(); err != nil {
		return err
	}
	if err := mountPins(l.paths.pins()); err != nil {
		return err
	}
	if _, err := os.Lstat(l.paths.cgroup()); err == nil {
		return fmt.Errorf("cgroup %s is there already: evenkeel sim down --name %s removes what is left of a lab",
			l.paths.cgroup(), l.Name())
	}
	return nil
}

// makeNodes makes the network of nodes.
func (l *Lab) makeNodes(rs routers) error {
	s := l.state
	done := l.options.steps("nodes", len(s.Nodes))
	for _, n := range s.Nodes {
		r, err := l.paths.newRouter(&n.Spec)
		if err != nil {
			return err
		}
		rs[n.Spec.Name] = r
		done()
	}
	for _, w := range s.Wires {
		if err := connect(rs, w); err != nil {
			return fmt.Errorf("connect %s and %s: %w", w.Ends[0], w.Ends[1], err)
		}
	}
	return route(rs, s)
}

// fillNodes makes pods and brings them and the agents to life. The kernel makes pods one at a time, on one processor:
// meanwhile a thousand documents are encoded, which takes 0.2 s, and agents load their programs. They wait for their
// manifests, which are there when all servers listen.
func (l *Lab) fillNodes(ctx context.Context, t *Topology, rs routers, done *Changes) error {
	group, together := errgroup.WithContext(ctx)
	var texts manifests
	var encoding errgroup.Group
	encoding.Go(func() (err error) {
		texts, err = encodeManifests(l.state, t.Documents)
		return err
	})
	early := !l.state.Dataplane.redirects() // the other agents are told of pods as they start
	if early {
		group.Go(func() error { return l.bringAgents(together, done) })
	}
	group.Go(func() error {
		s := l.state
		err := l.paths.makePods(together, s, rs, s.Pods, l.options.steps("pods", len(s.Pods)))
		if err := errors.Join(err, encoding.Wait()); err != nil {
			return err
		}
		return l.bringServers(together, texts, s.Pods, done)
	})
	if err := group.Wait(); err != nil || early {
		return err
	}
	return l.bringAgents(ctx, done)
}

func (l *Lab) makeNodeDirectories(nodes []*nodeState) error {
	for _, n := range nodes {
		name := n.Spec.Name
		for _, dir := range []string{l.paths.nodeDir(name), l.paths.nodeCgroup(name), l.paths.agentCgroup(name),
			l.paths.hostCgroup(name), l.paths.pins()} {
			if err := makeDirectory(dir, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// bringServers starts the servers of pods and then tells the agents of them: servers listen before an agent reads that
// their pods are ready. What it did is added to done, as by the other steps.
func (l *Lab) bringServers(ctx context.Context, texts manifests, pods []*podState, done *Changes) (err error) {
	for _, pod := range pods {
		if err := makeDirectory(l.paths.podCgroup(pod), 0o755); err != nil {
			return err
		}
	}
	if err := l.startServers(ctx, pods, l.options.steps("servers", count(pods, serves))); err != nil {
		return err
	}
	done.Manifests, err = texts.write(l.paths.manifests())
	return err
}

// bringAgents starts the agents of nodes that have none, and returns when they have read the manifests.
func (l *Lab) bringAgents(ctx context.Context, done *Changes) error {
	if !l.state.Agent.Enabled {
		return nil
	}
	idle := l.state.idle()
	done.AgentsStarted = len(idle)
	return l.startAgents(ctx, idle, l.options.steps("agents", len(idle)))
}

// enlist enrols the pods that should be, and starts the commands of new pods. A pod that was there before may only now
// be one to enrol.
func (l *Lab) enlist(ctx context.Context, fresh []*podState, done *Changes) error {
	before := count(l.state.Pods, unenrolled)
	if err := l.enrolPods(ctx, l.state.Pods, l.options.steps("enrolments", before)); err != nil {
		return err
	}
	done.PodsEnrolled = before - count(l.state.Pods, unenrolled)
	return l.startCommands(fresh)
}

func serves(p *podState) bool { return len(p.Spec.Serve) > 0 }

// unenrolled tells whether a pod should be enrolled and is not. One that was refused is asked again: its labels may
// have changed.
func unenrolled(p *podState) bool { return p.Spec.Enrol && !p.Enrolled }

func count(pods []*podState, which func(*podState) bool) int {
	n := 0
	for _, p := range pods {
		if which(p) {
			n++
		}
	}
	return n
}
