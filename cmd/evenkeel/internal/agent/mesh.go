// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/cni"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/engine/expedite"
)

// NetnsDirs are where container runtimes have the files of their network namespaces.
var NetnsDirs = []string{"/run/netns", "/var/run/netns"}

const (
	// meshPeriod is how often pods are compared with what was decided, beside every time that the sources say something.
	meshPeriod = 5 * time.Second
	// meshWorkers is how many pods are enrolled at once: see batchWorkers of the command enrol.
	meshWorkers = 2
)

// mesh keeps what was decided about namespaces and pods pinned, and makes running pods what was decided.
type mesh struct {
	*agent
	publisher   *cni.Publisher
	attachments cni.Attachments
	options     enrol.Options
	said        map[string]string // what was logged of pods that are outside, by name

	mu      sync.Mutex
	outside map[string]string // why pods that have to be in the mesh are not, by name
	untold  error             // why the CNI plugin does not know what was decided
}

func (a *agent) newMesh() (*mesh, error) {
	maps, err := enrolment.Maps(a.store.Frozen(), a.store.Serving().Sizes())
	if err != nil {
		return nil, err
	}
	p, err := cni.NewPublisher(a.Dir, a.StateDir)
	if err != nil {
		return nil, err
	}
	return &mesh{
		agent: a, publisher: p, attachments: cni.OpenAttachments(a.RunDir), said: make(map[string]string),
		options: enrol.Options{Maps: maps, Links: enrolment.Links(a.store.Pods), SourceCheck: a.SourceCheck == nil || *a.SourceCheck},
	}, nil
}

// run begins once all sources have spoken: what was decided before holds until then.
func (m *mesh) run(ctx context.Context) error {
	defer m.publisher.Close()
	select {
	case <-ctx.Done():
		return nil
	case <-m.engine.Ready():
	}
	tick := time.NewTicker(meshPeriod)
	defer tick.Stop()
	problem := ""
	for {
		if err := m.step(ctx); changed(&problem, err) && ctx.Err() == nil {
			m.Log.Warn("enrol pods by their labels", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-m.stirred:
		}
	}
}

func (m *mesh) step(ctx context.Context) error {
	namespaces := m.engine.Namespaces()
	pods, err := m.engine.Workloads()
	if err != nil {
		return err
	}
	// Pods that run are no less in the mesh because nobody could be told of those to come.
	untold := m.publisher.Publish(decide(namespaces, pods))
	m.mu.Lock()
	m.untold = untold
	m.mu.Unlock()
	return errors.Join(untold, m.settle(ctx, work(namespaces, pods)))
}

// settle does what there is to be done to pods that run.
func (m *mesh) settle(ctx context.Context, w todo) error {
	if len(w.enrol)+len(w.withdraw) == 0 {
		m.note(nil)
		return nil
	}
	lock, cancel := context.WithTimeoutCause(ctx, podsLock, errors.New("an upgrade is under way, it is tried again later"))
	defer cancel()
	unlock, err := m.store.Writers(lock, false)
	if err != nil {
		return err
	}
	defer unlock()
	return expedite.Kernel().During(func() error {
		err := m.withdraw(ctx, w.withdraw)
		return errors.Join(err, m.enrol(ctx, w.enrol))
	})
}

// verdict is what was decided about a namespace, known or not.
func verdict(n engine.Namespace) cni.Verdict {
	switch {
	case n.OtherMesh != "":
		return cni.OtherMesh
	case n.Mesh == engine.InMesh:
		return cni.Mesh
	case n.Mesh == engine.OutOfMesh:
		return cni.Off
	}
	return cni.Unsaid
}

// verdictOn is what was decided about a pod.
func verdictOn(n engine.Namespace, pod engine.WorkloadView) cni.Verdict {
	decided := verdict(engine.Namespace{Mesh: n.Mesh})
	switch pod.Mesh {
	case engine.InMesh:
		decided = cni.Mesh
	case engine.OutOfMesh:
		decided = cni.Off
	}
	switch {
	case pod.OtherMesh != "":
		return cni.OtherMesh
	case pod.Sidecar != "" && decided == cni.Mesh:
		return cni.Ineligible
	}
	return decided
}

func namespaceOf(pod string) string {
	namespace, _, _ := strings.Cut(pod, "/")
	return namespace
}

// decide is what the plugin has to know: namespaces, and those pods that are not as their namespace is.
func decide(namespaces map[string]engine.Namespace, pods []engine.WorkloadView) cni.Decisions {
	all := cni.Decisions{}
	for name, n := range namespaces {
		if v := verdict(n); v != cni.Unsaid {
			all[name] = cni.Decision{Verdict: v}
		}
	}
	for _, p := range pods {
		if !p.Known || p.HostNetwork {
			continue
		}
		n := namespaces[namespaceOf(p.Name)]
		v := verdictOn(n, p)
		if v != verdict(n) || p.Critical && v == cni.Mesh {
			all[p.Name] = cni.Decision{Verdict: v, Critical: p.Critical, UID: p.UID}
		}
	}
	return all
}

// todo is what has to be done to pods that run.
type todo struct{ enrol, withdraw []engine.WorkloadView }

// work compares pods with what was decided. Of a pod that no source has, or whose namespace none has, nothing is known:
// it stays as it is.
func work(namespaces map[string]engine.Namespace, pods []engine.WorkloadView) todo {
	var w todo
	for _, p := range pods {
		n, known := namespaces[namespaceOf(p.Name)]
		if !p.Known || p.HostNetwork || !known && p.Mesh == engine.NoWish && p.OtherMesh == "" {
			continue
		}
		switch in := verdictOn(n, p) == cni.Mesh; {
		case in && !p.Enrolled && len(p.Addresses) > 0:
			w.enrol = append(w.enrol, p)
		case !in && p.Enrolled:
			w.withdraw = append(w.withdraw, p)
		}
	}
	return w
}

func (m *mesh) withdraw(ctx context.Context, pods []engine.WorkloadView) error {
	var failed []error
	for _, p := range pods {
		was, err := enrol.WithdrawCookie(ctx, m.options, p.Cookie, p.Name)
		if was {
			m.Log.Info("pod was withdrawn", "workload", p.Name)
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// enrol enrols pods, and notes why it could not.
func (m *mesh) enrol(ctx context.Context, pods []engine.WorkloadView) error {
	if len(pods) == 0 {
		m.note(nil)
		return nil
	}
	find, err := m.finder(pods)
	if err != nil {
		return err
	}
	o := m.options
	if state, err := m.store.Inspect(); err == nil {
		balancer := enrolment.Balancer(state.Others)
		o.OtherBalancer = func() (string, error) { return balancer, nil }
	}
	var mu sync.Mutex
	outside := make(map[string]string)
	group := new(errgroup.Group)
	group.SetLimit(meshWorkers)
	for _, p := range pods {
		group.Go(func() error {
			path, err := find(p)
			if err == nil {
				_, err = enrol.Enrol(ctx, o, enrol.Pod{Name: p.Name, Netns: path, Facts: enrol.Facts{
					Sidecar: p.Sidecar, OtherMesh: p.OtherMesh,
				}})
			}
			if err != nil {
				mu.Lock()
				outside[p.Name] = err.Error()
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if done := len(pods) - len(outside); done > 0 {
		m.Log.Info("running pods were enrolled", "count", done)
	}
	m.note(outside)
	return ctx.Err()
}

// finder finds the namespaces of pods: by the records of attachments, else by their addresses.
func (m *mesh) finder(pods []engine.WorkloadView) (func(engine.WorkloadView) (string, error), error) {
	records, err := m.attachments.List()
	if err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	recorded := make(map[string]cni.Attachment)
	for _, r := range records {
		if cookie, err := enrol.Cookie(r.Netns); err == nil && cookie == r.Cookie {
			recorded[r.Pod] = r
		}
	}
	of := func(p engine.WorkloadView) (cni.Attachment, bool) {
		r, known := recorded[p.Name]
		return r, known && (r.UID == "" || p.UID == "" || r.UID == p.UID)
	}
	byAddress := make(map[netip.Addr][]enrol.Sandbox)
	if slices.ContainsFunc(pods, func(p engine.WorkloadView) bool { _, known := of(p); return !known }) {
		all, err := enrol.Sandboxes(m.NetnsDirs...)
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			for _, a := range s.Addresses {
				byAddress[a] = append(byAddress[a], s)
			}
		}
	}
	return func(p engine.WorkloadView) (string, error) {
		if r, known := of(p); known {
			return r.Netns, nil
		}
		var found []enrol.Sandbox
		for i, a := range p.Addresses {
			if i == 0 {
				found = byAddress[a.Unmap()]
				continue
			}
			found = slices.DeleteFunc(slices.Clone(found), func(s enrol.Sandbox) bool {
				return !slices.Contains(s.Addresses, a.Unmap())
			})
		}
		if attached := func(s enrol.Sandbox) bool { return s.Attached }; slices.ContainsFunc(found, attached) {
			found = slices.DeleteFunc(slices.Clone(found), func(s enrol.Sandbox) bool { return !attached(s) })
		}
		switch len(found) {
		case 0:
			return "", fmt.Errorf("no network namespace of this node has its address %v: is it starting?", p.Addresses[0])
		case 1:
			return found[0].Path, nil
		}
		return "", fmt.Errorf("%d network namespaces have its address %v, %s and %s: which is its own cannot be told",
			len(found), p.Addresses[0], found[0].Path, found[1].Path)
	}, nil
}

// note keeps which pods are outside and why, and logs what is new.
func (m *mesh) note(outside map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(outside)) {
		if m.said[name] != outside[name] {
			m.Log.Warn("pod has to be in the mesh and is not", "workload", name, "err", outside[name])
		}
	}
	m.said = outside
	m.mu.Lock()
	defer m.mu.Unlock()
	m.outside = outside
}

// Untold is why the CNI plugin does not know what was decided about pods to come, nil if it does.
func (m *mesh) Untold() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.untold
}

// Outside says why pods that have to be in the mesh are not, by name.
func (m *mesh) Outside() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.outside
}
