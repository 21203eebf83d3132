// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/engine/source/cases"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

// The generators draw from so few names, labels and addresses that objects meet all the time.
var (
	namespaces = rapid.SampledFrom([]string{"a", "b"})
	nodeNames  = rapid.SampledFrom([]string{"", "n1", "n2"})
	zones      = rapid.SampledFrom([]string{"", "x", "y"})
	labelSets  = rapid.SampledFrom([]map[string]string{
		nil, {"app": "web"}, {"app": "db"}, {"app": "web", "tier": "1"}, {"tier": "1"}})
	addresses = rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"})
)

func pick[T any](t *rapid.T, what string, values ...T) T {
	return rapid.SampledFrom(values).Draw(t, what)
}

func meta(t *rapid.T, namespace string, names int) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("o%d", rapid.IntRange(1, names).Draw(t, "name"))}
}

func drawPod(t *rapid.T) manifest.Object {
	p := &corev1.Pod{ObjectMeta: meta(t, namespaces.Draw(t, "namespace"), 4)}
	p.Labels = labelSets.Draw(t, "labels")
	p.Annotations = pick(t, "weight",
		nil, map[string]string{WeightAnnotation: "5"}, map[string]string{WeightAnnotation: "x"})
	p.Spec.NodeName = nodeNames.Draw(t, "node")
	p.Spec.HostNetwork = rapid.Bool().Draw(t, "host network")
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{
		{Name: pick(t, "port", "http", "other"), ContainerPort: pick[int32](t, "number", 80, 81)}}}}
	for _, ip := range rapid.SliceOfNDistinct(addresses, 0, 2, rapid.ID).Draw(t, "addresses") {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	p.Status.Phase = pick(t, "phase", corev1.PodRunning, corev1.PodRunning, corev1.PodSucceeded)
	ready := pick(t, "ready", corev1.ConditionTrue, corev1.ConditionFalse)
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	if rapid.Bool().Draw(t, "terminating") {
		p.DeletionTimestamp = &metav1.Time{}
	}
	return p
}

func drawService(t *rapid.T) manifest.Object {
	s := &corev1.Service{ObjectMeta: meta(t, namespaces.Draw(t, "namespace"), 3)}
	s.Spec.ClusterIP = pick(t, "cluster address", "10.96.0.1", "fd00:96::1", corev1.ClusterIPNone)
	s.Spec.Selector = labelSets.Draw(t, "selector")
	s.Spec.PublishNotReadyAddresses = rapid.Bool().Draw(t, "publish")
	s.Spec.TrafficDistribution = pick(t, "distribution", nil, new(corev1.ServiceTrafficDistributionPreferSameNode))
	target := pick(t, "target", intstr.FromString("http"), intstr.FromInt32(80))
	s.Spec.Ports = []corev1.ServicePort{{Port: 80, TargetPort: target}}
	return s
}

func drawSlice(t *rapid.T) manifest.Object {
	namespace := namespaces.Draw(t, "namespace")
	s := &discoveryv1.EndpointSlice{ObjectMeta: meta(t, namespace, 3)}
	s.Labels = pick(t, "of", nil, map[string]string{discoveryv1.LabelServiceName: "o1"})
	for _, ip := range rapid.SliceOfN(addresses, 0, 3).Draw(t, "endpoints") {
		e := discoveryv1.Endpoint{Addresses: []string{ip}}
		if rapid.Bool().Draw(t, "names a pod") {
			e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: meta(t, namespace, 4).Name}
		}
		if n := nodeNames.Draw(t, "node"); n != "" {
			e.NodeName = &n
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func drawObject(t *rapid.T) manifest.Object {
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		labels := pick(t, "mesh", nil, map[string]string{"istio.io/dataplane-mode": "ambient"})
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaces.Draw(t, "namespace"), Labels: labels}}
	case 1:
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: pick(t, "node", "n1", "n2")}}
		n.Labels = map[string]string{corev1.LabelTopologyZone: zones.Draw(t, "zone")}
		return n
	case 2, 3:
		return drawService(t)
	case 4, 5:
		return drawSlice(t)
	}
	return drawPod(t)
}

var compareAddresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// TestIncrementalEqualsFromScratch is the contract of a State: whatever came and went in whatever order, with changes
// that the engine took and changes that it did not, the engine ends with what a new State would have sent, and was
// never sent what it had.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		options := Options{Derive: rapid.Bool().Draw(t, "derive")}
		state, objects := New(options), map[manifest.Key]manifest.Object{}
		var model cases.Model
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			for range rapid.IntRange(1, 6).Draw(t, "objects") {
				o := drawObject(t)
				key := manifest.KeyOf(o)
				if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
					delete(objects, key)
					state.Delete(key)
				} else {
					objects[key] = o
					state.Upsert(o, "origin")
				}
			}
			change := state.Change()
			if rapid.IntRange(0, 3).Draw(t, "refused") == 0 {
				continue
			}
			mustDiffer(t, &model, change)
			model.Apply(change)
			state.Commit()
			compareWithNew(t, options, objects, state, &model)
		}
	})
}

func compareWithNew(t *rapid.T, o Options, objects map[manifest.Key]manifest.Object, state *State, model *cases.Model) {
	fresh := New(o)
	for _, object := range objects {
		fresh.Upsert(object, "origin")
	}
	var want cases.Model
	want.Apply(fresh.Change())
	if diff := cmp.Diff(&want, model, compareAddresses); diff != "" {
		t.Fatalf("from scratch - incremental +\n%s", diff)
	}
	if diff := cmp.Diff(fresh.Warnings(), state.Warnings()); diff != "" {
		t.Fatalf("warnings, from scratch - incremental +\n%s", diff)
	}
	if diff := cmp.Diff(fresh.Len(), state.Len()); diff != "" {
		t.Fatalf("objects, from scratch - incremental +\n%s", diff)
	}
	mustIndexTheSame(t, "pods by label", fresh.podsOf, state.podsOf)
	mustIndexTheSame(t, "services by label", fresh.selecting, state.selecting)
	mustIndexTheSame(t, "pods by namespace", fresh.byNamespace, state.byNamespace)
	mustIndexTheSame(t, "pods by address", fresh.byAddress, state.byAddress)
	mustIndexTheSame(t, "dependents by input", fresh.using, state.using)
}

// mustIndexTheSame holds that an index keeps nothing of what is gone.
func mustIndexTheSame[T comparable](t *rapid.T, what string, want, got *index[T]) {
	size := func(x *index[T]) [3]int { return [3]int{len(x.one), len(x.more), len(x.numbers)} }
	if size(want) != size(got) {
		t.Fatalf("%s: terms of one, terms of several and objects are %v, from scratch %v", what, size(got), size(want))
	}
	if len(got.objects) != len(got.numbers)+len(got.free) {
		t.Fatalf("%s: %d objects have %d numbers and %d are free", what, len(got.objects), len(got.numbers), len(got.free))
	}
}

func mustDiffer(t *rapid.T, m *cases.Model, c engine.Change) {
	differ(t, m.Services, c.Services)
	differ(t, m.Slices, c.Slices)
	differ(t, m.Nodes, c.Nodes)
	differ(t, m.Workloads, c.Workloads)
}

func differ[T any](t *rapid.T, have, changes map[string]*T) {
	for name, v := range changes {
		if cmp.Equal(have[name], v, compareAddresses) {
			t.Fatalf("%s was sent again, the same: %v", name, v)
		}
	}
}

func testPod(name, address string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels},
		Status:     corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: address}}},
	}
}

func testService(name, address string, selector map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: address, Selector: selector, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func testSlice(name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "s"}},
		Endpoints: endpoints,
	}
}

// TestPodTouchesOnlyItsServices holds that the work for one pod does not grow with the services that do not select
// it.
func TestPodTouchesOnlyItsServices(t *testing.T) {
	s := New(Options{Derive: true})
	for i := range 100 {
		app := map[string]string{"app": fmt.Sprint(i), "mesh": "yes"}
		s.Upsert(testService(fmt.Sprint("s", i), "10.96.0.1", app), "x")
		s.Upsert(testPod(fmt.Sprint("p", i), fmt.Sprint("10.0.0.", i), app), "x")
		address := []string{fmt.Sprint("10.0.0.", i)}
		s.Upsert(testSlice(fmt.Sprint("e", i), discoveryv1.Endpoint{Addresses: address}), "x")
	}
	s.Change()
	s.Commit()
	moved := testPod("p7", "10.0.0.8", map[string]string{"app": "9", "mesh": "yes"})
	s.Upsert(moved, "x")
	var touched []string
	for key := range maps.Keys(s.dirty) {
		touched = append(touched, key.String())
	}
	slices.Sort(touched)
	want := []string{
		"EndpointSlice shop/e7", "EndpointSlice shop/e8", "Pod shop/p7", "Service shop/s7", "Service shop/s9"}
	if diff := cmp.Diff(want, touched); diff != "" {
		t.Error(diff)
	}
	got := s.Change()
	if len(got.Services)+len(got.Nodes) != 0 || len(got.Workloads) != 1 || len(got.Slices) != 4 {
		t.Errorf("change = %+v", got)
	}
	if v, sent := got.Slices["shop/s7/ipv4/80/TCP"]; !sent || v != nil {
		t.Errorf("the slice without endpoints was not deleted: %v", v)
	}
}

// TestAddressOfTwoPods is the moment in which a new pod has the address of one that is still on its way out.
func TestAddressOfTwoPods(t *testing.T) {
	s := New(Options{})
	weigh := func(p *corev1.Pod, weight string) *corev1.Pod {
		p.Annotations = map[string]string{WeightAnnotation: weight}
		return p
	}
	leaving := weigh(testPod("a", "10.0.0.1", nil), "2")
	leaving.DeletionTimestamp = &metav1.Time{}
	s.Upsert(leaving, "x")
	s.Upsert(weigh(testPod("c", "10.0.0.1", nil), "4"), "x")
	s.Upsert(weigh(testPod("b", "10.0.0.1", nil), "3"), "x")
	s.Upsert(testSlice("e", discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}}), "x")
	if got := s.Change().Slices["shop/e"].Endpoints[0]; got.Workload != "shop/b" || got.Weight != 3 {
		t.Errorf("endpoint = %+v, want that of shop/b", got)
	}
}

func TestChangeIsOfferedUntilCommitted(t *testing.T) {
	s := New(Options{})
	s.Upsert(testPod("p", "10.0.0.1", nil), "a")
	if c := s.Change(); len(c.Workloads) != 1 {
		t.Fatalf("first change = %+v", c)
	}
	s.Upsert(testPod("q", "10.0.0.2", nil), "a")
	if c := s.Change(); len(c.Workloads) != 2 {
		t.Fatalf("change after one that was not committed = %+v", c)
	}
	s.Commit()
	if diff := cmp.Diff(engine.Change{}, s.Change()); diff != "" {
		t.Fatalf("nothing is left: %s", diff)
	}
	s.Commit()
	s.Upsert(testPod("p", "10.0.0.1", nil), "b")
	if c := s.Change(); len(c.Workloads) != 1 || c.Workloads["shop/p"].Origin != "b" {
		t.Fatalf("another origin = %+v", c)
	}
}
