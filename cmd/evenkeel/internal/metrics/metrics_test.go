// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/admin"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/upgrade"
)

// gather returns "name{label="value",...} value" of every metric of a status, after the registry has checked them.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			all[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

// fixed collects from a status that is given.
type fixed struct{ status *report.Status }

func (f fixed) Describe(chan<- *prometheus.Desc)     {}
func (f fixed) Collect(out chan<- prometheus.Metric) { send(out, f.status) }

func TestMetrics(t *testing.T) {
	got := gather(t, fixed{&report.Status{
		Healthy: true, Agent: report.Agent{Ready: true}, Word: report.Word{Epoch: 3, Floor: 1, Serve: 2, Canary: 4, Share: 41},
		Hooks: []report.Hook{{HookState: upgrade.HookState{Name: "tcx", OK: true}, Misses: 5}},
		Generations: []report.Generation{{GenerationState: upgrade.GenerationState{Number: 2},
			Counters: map[string]uint64{"connect": 7}}},
		Maps:    []engine.MapFill{{Map: "slots", Used: 3, Capacity: 9, Bytes: 11}},
		Sources: []report.Source{{Name: "file:/m", Path: "/m", Error: "bad"}},
		Engine:  &engine.Stats{Applied: 5, Failed: 2, Pending: 6},
		Workloads: []report.Workload{
			{Name: "a/b", Enrolled: true}, {Name: "a/c", Enrolled: true}, {Name: "a/d"},
		},
	}})
	for name, want := range map[string]float64{
		"evenkeel_healthy{}": 1, "evenkeel_ready{}": 1, "evenkeel_word{field=epoch}": 3, "evenkeel_word{field=canary}": 4,
		"evenkeel_misses_total{hook=tcx}": 5, "evenkeel_hook_attached{hook=tcx}": 1,
		"evenkeel_events_total{event=connect,generation=2}": 7, "evenkeel_map_used{map=slots}": 3,
		"evenkeel_map_capacity{map=slots}": 9, "evenkeel_map_bytes{map=slots}": 11, "evenkeel_source_failing{source=/m}": 1,
		"evenkeel_changes_total{result=whole}": 3, "evenkeel_changes_total{result=failed}": 2,
		"evenkeel_services_pending{}": 6, "evenkeel_workloads{enrolled=yes}": 2, "evenkeel_workloads{enrolled=no}": 1,
	} {
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, there, want)
		}
	}
	for name := range got {
		if strings.Contains(name, "a/b") || strings.Contains(name, "file:") {
			t.Errorf("%s has a label without bound", name)
		}
	}
}

func TestMetricsWhenNothingCanBeRead(t *testing.T) {
	got := gather(t, newCollector(&report.View{Dir: filepath.Join(t.TempDir(), "none")}))
	if len(got) != 1 || got["evenkeel_collect_failed{}"] != 1 {
		t.Errorf("%v", got)
	}
}

// TestReadinessDoesNotWait: whoever reaches the port could hold connections for minutes.
func TestReadinessDoesNotWait(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	asked := 0
	never := admin.Readiness{
		Check:  func() []string { asked++; return []string{"something is missing"} },
		Synced: make(chan struct{}),
	}
	go func() { served <- Serve(ctx, l, &report.View{}, never) }()
	for range 20 {
		start := time.Now()
		response, err := http.Get("http://" + l.Addr().String() + "/readyz?wait=5m")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusServiceUnavailable || time.Since(start) > time.Minute {
			t.Errorf("%s after %v", response.Status, time.Since(start))
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if asked > 10 { // 20 requests take milliseconds, and a second has to pass between two looks
		t.Errorf("20 requests cost %d looks", asked)
	}
}
