// SPDX-License-Identifier: Apache-2.0

// Package agent is the node agent: it takes the data plane over, keeps the engine fed from its sources, looks after
// enrolled pods, and answers questions. It composes upgrade, engine, the sources and enrol, and decides nothing about
// traffic itself. The command agent runs it. It removes nothing when it ends, however it ends: the kernel serves on.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/admin"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/footprint"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/metrics"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cni/install"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/source/file"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Options say which node the agent is for and where things are.
type Options struct {
	Node     string
	Sources  []string // paths of manifests, in rising precedence
	Dir      string   // of the pins
	Cgroup   string   // below which the pods' processes are
	Admin    string   // path of the socket that answers questions
	Metrics  string   // address:port of the metrics, empty for none
	TakeOver bool     // kill the agent that is running
	OnStart  string   // what to do if another release serves: OnStartUpgrade, OnStartAdopt or OnStartRefuse
	Sizes    bpf.Sizes
	Window   time.Duration   // for how long one can go back after an upgrade
	Canary   *upgrade.Canary // try the release with a share of connections first, if it can be; may be nil
	// SourceCheck is whether sources of all enrolled pods are checked; nil leaves each as it was enrolled.
	SourceCheck *bool
	// ByLabel is whether pods of this node are enrolled and withdrawn by the label evenkeel.io/mesh. StateDir and RunDir
	// are where the CNI plugin finds what was decided after a boot, and leaves its records.
	ByLabel          bool
	StateDir, RunDir string
	// NetnsDirs are where the files of pods' network namespaces are, of those that the plugin has not seen.
	NetnsDirs []string
	// CNI keeps the CNI plugin in the chain of the node; nil leaves that to others.
	CNI     *install.Options
	Release string // of this binary, for people
	Notify  string // socket of sd_notify(3), empty for none
	Log     *slog.Logger
}

// What an agent does if another release, or another size, serves than its own.
const (
	OnStartUpgrade = "upgrade" // make its own serve
	OnStartAdopt   = "adopt"   // go on with what serves, if its maps are the same
	OnStartRefuse  = "refuse"  // end
)

// accept is the same in terms of package upgrade.
func (o *Options) accept() upgrade.Accept {
	switch o.OnStart {
	case OnStartAdopt:
		return upgrade.AcceptLayout
	case OnStartRefuse:
		return upgrade.AcceptRelease
	}
	return upgrade.AcceptUpgrade
}

// agent is one that has taken the data plane over.
type agent struct {
	Options
	since   time.Time
	store   *upgrade.Store
	engine  *engine.Engine
	sources []*file.Source
	view    *report.View
	// composed is closed when there is an engine: the sources read while it adopts what the maps hold.
	composed chan struct{}
	trying   bool // a share of the connections is to try the release while the agent serves
	// burst is told of work that has left much garbage behind.
	burst chan struct{}
	// stirred is told when the sources have said something of pods or namespaces; mesh is nil without ByLabel.
	stirred chan struct{}
	mesh    *mesh
}

// Run serves until ctx ends, and then returns nil. What it returns an error for has left the data plane as it was,
// serving if it did.
func Run(ctx context.Context, o Options) (err error) {
	defer func() {
		if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
			err = nil // it was told to end before it had begun
		}
	}()
	a := &agent{Options: o, since: time.Now(), composed: make(chan struct{}), burst: make(chan struct{}, 1),
		stirred: make(chan struct{}, 1)}
	footprint.Limit()
	if most := footprint.Allowed(); most != 0 && most < footprint.Needed {
		o.Log.Warn("the control group of the agent has little memory: the kernel may kill it while it starts, and what serves "+
			"serves on", "MiB", most>>20, "needed", footprint.Needed>>20)
	}
	if err := upgrade.CheckPlace(o.Dir); err != nil {
		return err
	}
	var s sockets
	defer s.close()
	var incumbent *upgrade.Holder
	if o.TakeOver {
		if incumbent, err = s.beforeTakeOver(ctx, o); err != nil {
			return err
		}
	}
	a.store, err = upgrade.Open(ctx, plane.Of(o.Sizes.MaxEntries()), upgrade.Options{
		Dir: o.Dir, Cgroup: o.Cgroup, TakeOver: incumbent, Log: o.Log, Accept: o.accept(),
	})
	if err != nil {
		return explain(err, o.OnStart != OnStartUpgrade)
	}
	defer func() { err = errors.Join(err, a.store.Close()) }()
	if a.store.Differs() { // so the node is not upgraded for an agent that cannot run
		if err := s.probe(ctx, o); err != nil {
			return err
		}
	}
	if err := a.upgrade(ctx); err != nil {
		return explain(err, false)
	}
	if err := a.run(ctx, &s); err != nil && ctx.Err() == nil {
		return err
	}
	o.Log.Info("agent ends, the data plane serves on")
	return nil
}

// run runs every part until one fails or ctx ends, and waits for all of them.
func (a *agent) run(ctx context.Context, s *sockets) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	a.read(ctx, group)
	err := a.compose(ctx)
	if err == nil {
		err = s.listen(ctx, a.Options, 0)
	}
	if err == nil {
		a.serve(ctx, group, s.admin, s.metrics)
	} else {
		stop()
	}
	return errors.Join(err, group.Wait())
}

// read starts the sources. What they have read waits for the engine, which adopts what the maps hold meanwhile.
func (a *agent) read(ctx context.Context, group *errgroup.Group) {
	for _, path := range a.Sources {
		name := sourceName(path)
		s := file.New(file.Options{Path: path, Log: a.Log})
		a.sources = append(a.sources, s)
		group.Go(func() error {
			return s.Run(ctx, func(ctx context.Context, c engine.Change) error {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-a.composed:
					return a.apply(ctx, name, c)
				}
			})
		})
	}
}

// upgrade makes this release serve, where another does. A release that was rolled back is not tried again by itself: the
// agent goes on with what serves, as far as it knows the maps of that.
func (a *agent) upgrade(ctx context.Context) error {
	if !a.store.Differs() || a.OnStart == OnStartAdopt || a.OnStart == OnStartRefuse {
		return nil
	}
	if a.store.Fate() == upgrade.KindRollback {
		a.Log.Warn("this release was rolled back, so another goes on: 'evenkeel upgrade apply' tries it again")
		return nil
	}
	if a.Canary != nil {
		plan, err := a.store.Plan()
		if err != nil {
			return err
		}
		if a.trying = plan.Canary; a.trying {
			return nil // the agent serves meanwhile
		}
		a.Log.Warn("a layout changes, so no share of the connections can try this release: this node does as a whole")
	}
	plan, err := a.store.Upgrade(ctx, upgrade.Attempt{})
	if err != nil {
		return err
	}
	a.Log.Info("upgraded", "from", plan.From.Generation, "to", a.store.Word().Serve(), "move", plan.Move)
	return nil
}

// retire gives up the way back when its time is over, and generations that no connection runs any more.
func (a *agent) retire(ctx context.Context) error {
	tick := time.NewTicker(min(time.Minute, max(a.Window/4, time.Second)))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		retired, err := a.store.Expire(ctx, a.Window)
		var stale *upgrade.StaleError
		switch {
		case errors.As(err, &stale):
			return nil // another owns it; lookAfterLease says so
		case err != nil:
			a.Log.Warn("old generations are still there", "err", err)
		case len(retired) > 0:
			a.Log.Info("retired generations", "numbers", retired)
		}
	}
}

// try gives the release to a share of the connections, and to all if it does well. If not, the other goes on.
func (a *agent) try(ctx context.Context) error {
	if !a.trying {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-a.engine.Ready():
	}
	if _, err := a.store.Upgrade(ctx, upgrade.Attempt{Canary: a.Canary}); err != nil {
		a.Log.Error("this release does not serve", "err", err)
		return nil
	}
	a.Log.Info("upgraded", "to", a.store.Word().Serve())
	return nil
}

// explain adds what to do, in the words of the command, to what upgrade found. upgradable tells that an upgrade to this
// release was not tried.
func explain(err error, upgradable bool) error {
	var held *upgrade.HeldError
	var refused *upgrade.RefusedError
	switch {
	case errors.As(err, &held):
		return fmt.Errorf("%w (--take-over kills it and goes on from where it was)", err)
	case errors.As(err, &refused):
		return plane.Refusal(refused, upgradable)
	case errors.Is(err, unix.ENOMEM):
		group := ""
		if most := footprint.Allowed(); most != 0 {
			group = fmt.Sprintf(" (its control group allows %d MiB)", most>>20)
		}
		return fmt.Errorf("%w: give the agent more memory%s, or make its maps smaller with --max-endpoints and the other sizes",
			err, group)
	}
	return err
}

// compose makes the parts and hands them to each other.
func (a *agent) compose(ctx context.Context) error {
	serving := a.store.Serving()
	maps, err := plane.Maps(a.store.Frozen(), serving)
	if err != nil {
		return err
	}
	for _, name := range []string{bpf.MeshProgPublish, bpf.MeshProgDestroyUdp} { // as upgrade has made sure already
		if serving.Programs[name] == nil {
			return fmt.Errorf("generation %d has no program %s: it is of a release that this one cannot go on from",
				serving.Number, name)
		}
	}
	names := make([]string, len(a.Sources))
	for i, path := range a.Sources {
		names[i] = sourceName(path)
	}
	a.engine, err = engine.New(ctx, engine.Options{
		Maps: maps, FreshMaps: a.store.Created(), Sizes: serving.Sizes(),
		Publisher:  bpf.NewPublisher(serving.Programs[bpf.MeshProgPublish], a.store.Epoch()),
		DestroyUDP: serving.Programs[bpf.MeshProgDestroyUdp], Node: a.Node, Sources: names, Log: a.Log,
	})
	if err != nil {
		return err
	}
	a.view = &report.View{
		Dir: a.Dir, Frozen: a.store.Frozen(), Serving: serving, Sizes: serving.Sizes(), Pods: a.store.Pods,
		Engine: a.engine, Word: a.store.Word,
		Agent: a.describe, Differs: a.store.Differs(),
	}
	if a.ByLabel {
		if a.mesh, err = a.newMesh(); err != nil {
			return err
		}
		a.view.Outside, a.view.Untold = a.mesh.Outside, a.mesh.Untold
	}
	close(a.composed)
	return nil
}

func sourceName(path string) string { return "file:" + path }

// serve starts all other parts.
func (a *agent) serve(ctx context.Context, group *errgroup.Group, adminSocket, metricsSocket net.Listener) {
	group.Go(func() error { return a.engine.Run(ctx) })
	group.Go(func() error { return a.lookAfterPods(ctx) })
	if a.mesh != nil {
		group.Go(func() error { return a.mesh.run(ctx) })
	}
	group.Go(func() error { return a.lookAfterLease(ctx) })
	if a.CNI != nil {
		keeper := &install.Keeper{Options: *a.CNI}
		group.Go(func() error { return keeper.Run(ctx) })
	}
	ready := admin.Readiness{Check: a.notReady, Synced: a.engine.Ready()}
	group.Go(func() error { return admin.Serve(ctx, adminSocket, a.view, ready) })
	if metricsSocket != nil {
		group.Go(func() error { return metrics.Serve(ctx, metricsSocket, a.view, ready) })
	}
	group.Go(func() error { return a.tell(ctx) })
	group.Go(func() error { return a.try(ctx) })
	group.Go(func() error { return a.retire(ctx) })
	group.Go(func() error { return a.giveMemoryBack(ctx) })
}

// tell tells whoever started the agent when it is ready, and when it ends.
func (a *agent) tell(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.engine.Ready():
	}
	if why := a.attached(); len(why) > 0 {
		return fmt.Errorf("the data plane is not whole: %s", why[0])
	}
	for _, w := range a.engine.Warnings() {
		a.Log.Warn("what is in effect is hardly meant", "warning", w)
	}
	a.Log.Info("ready", "node", a.Node, "took", time.Since(a.since).Round(time.Millisecond))
	if err := notify(a.Notify, "READY=1", "STATUS=serving node "+a.Node); err != nil {
		a.Log.Warn("ready, but nobody could be told", "err", err)
	}
	<-ctx.Done()
	if err := notify(a.Notify, "STOPPING=1"); err != nil {
		a.Log.Debug("ending, but nobody could be told", "err", err) // whoever waited for READY may have gone
	}
	return nil
}
