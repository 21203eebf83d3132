// SPDX-License-Identifier: Apache-2.0

// Package metrics shows what the agent and the data plane count, in the text format of Prometheus. The agent serves it.
// Every label has few values that are known beforehand: names of counters, hooks and maps, numbers of generations,
// paths of sources. No pod, service or address is one.
package metrics

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/admin"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
)

// DefaultAddress is where metrics are served: only to the node, as nobody is asked who he is.
const DefaultAddress = "127.0.0.1:15090"

// maxConnections is how many there may be at a time: the port is open to whoever reaches the node.
const maxConnections = 64

// Serve answers /metrics and /readyz until ctx ends, and then returns nil. It closes the listener.
func Serve(ctx context.Context, l net.Listener, v *report.View, ready admin.Readiness) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(v), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2}))
	mux.Handle("GET /readyz", ready.Now())
	return admin.ServeHTTP(ctx, netutil.LimitListener(l, maxConnections), &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		IdleTimeout: 10 * time.Second,
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // clients that go away are no news
	})
}

// collector reads everything when it is asked.
type collector struct{ collect func() collected }

type collected struct {
	status *report.Status
	err    error
}

func newCollector(v *report.View) *collector {
	return &collector{admin.Recent(func() collected {
		s, err := report.Collect(v.Dir, v)
		return collected{s, err}
	})}
}

var (
	counted = describe("events_total", "Events counted by the data plane, by name and generation.", "event", "generation")
	misses  = describe("misses_total", "Times that a hook found no program of the generation that it had to run: damage.",
		"hook")
	attached = describe("hook_attached", "Whether the entry program of a hook is where it should be.", "hook")
	used     = describe("map_used", "Elements in a map.", "map")
	capacity = describe("map_capacity", "Elements that a map has room for.", "map")
	bytes    = describe("map_bytes", "Kernel memory of a map.", "map")
	age      = describe("source_age_seconds", "Time since a source was last found to be good.", "source")
	failing  = describe("source_failing", "Whether what a source says now is not in effect.", "source")
	applied  = describe("changes_total", "Changes from sources, by whether all of them was applied.", "result")
	written  = describe("map_writes_total", "Map elements written by the agent since it started.", "map")
	pending  = describe("services_pending", "Services that are not served as they should be.")
	word     = describe("word", "The fields of the word that says which generation serves.", "field")
	enrolled = describe("workloads", "Pods of this node, by whether they are enrolled.", "enrolled")
	healthy  = describe("healthy", "Whether status has no problem to report.")
	ready    = describe("ready", "Whether the agent is ready.")
	scraped  = describe("collect_failed", "Whether the status could not be read this time.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("evenkeel_"+name, help, labels, nil)
}

// Describe sends nothing: what there is depends on what is loaded. The registry checks it as it comes.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	got := c.collect()
	out <- prometheus.MustNewConstMetric(scraped, prometheus.GaugeValue, number(got.err != nil))
	if got.err == nil {
		send(out, got.status)
	}
}

// sink takes metrics, each with the values of its labels.
type sink chan<- prometheus.Metric

func (out sink) gauge(d *prometheus.Desc, value float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (out sink) counter(d *prometheus.Desc, value uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

// send turns a status into metrics.
func send(to chan<- prometheus.Metric, s *report.Status) {
	out := sink(to)
	out.gauge(healthy, number(s.Healthy))
	out.gauge(ready, number(s.Agent.Ready))
	out.dataPlane(s)
	for _, source := range s.Sources {
		out.gauge(failing, number(source.Error != ""), source.Path)
		if !source.Read.IsZero() {
			out.gauge(age, time.Since(source.Read).Seconds(), source.Path)
		}
	}
	if e := s.Engine; e != nil {
		out.counter(applied, e.Applied-e.Failed, "whole")
		out.counter(applied, e.Failed, "failed")
		out.counter(written, e.Writes.ServiceIDs, "service_ids")
		out.counter(written, e.Writes.Services, "services")
		out.counter(written, e.Writes.Slots, "slots")
		out.counter(written, e.Writes.Endpoints, "endpoints")
		out.gauge(pending, float64(e.Pending))
	}
	yes, no := 0, 0
	for _, w := range s.Workloads {
		if w.Enrolled {
			yes++
		} else {
			no++
		}
	}
	out.gauge(enrolled, float64(yes), "yes")
	out.gauge(enrolled, float64(no), "no")
}

// dataPlane sends what is in the kernel.
func (out sink) dataPlane(s *report.Status) {
	for _, g := range s.Generations {
		for name, n := range g.Counters {
			out.counter(counted, n, name, strconv.Itoa(int(g.Number)))
		}
	}
	for _, h := range s.Hooks {
		out.counter(misses, h.Misses, h.Name)
		out.gauge(attached, number(h.OK), h.Name)
	}
	for _, m := range s.Maps {
		out.gauge(used, float64(m.Used), m.Map)
		out.gauge(capacity, float64(m.Capacity), m.Map)
		out.gauge(bytes, float64(m.Bytes), m.Map)
	}
	for field, value := range map[string]uint16{
		"epoch": s.Word.Epoch, "floor": s.Word.Floor, "serve": s.Word.Serve, "canary": s.Word.Canary,
		"share": s.Word.Share,
	} {
		out.gauge(word, float64(value), field)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
