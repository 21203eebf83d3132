// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/upgrade"
)

// aStatus has every field that a status can have.
func aStatus() *report.Status {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	maps := []upgrade.MapState{{Name: "counters", ID: 11, Type: "PerCPUArray", MaxEntries: 16, Memory: 4096}}
	return &report.Status{
		Version:  report.Version,
		Problems: []string{"no agent is running", "source file:/m: web.yaml:3: bad\x1b[31m"},
		Warnings: []string{"this agent is for node n1, but no Node names it"},
		Dir:      "/sys/fs/bpf/evenkeel",
		Agent: report.Agent{
			Running: true, Answers: true, PID: 4711, Command: "evenkeel agent", Since: at, Release: "v1", Node: "n1",
			NotReady: []string{"source file:/m is being read"}, Epoch: 3,
		},
		Word:    report.Word{Epoch: 3, Floor: 1, Serve: 1, Canary: 2, Share: 41, Last: 2, Phase: "idle"},
		Differs: true,
		Hooks: []report.Hook{{HookState: upgrade.HookState{
			Name: "connect4", At: "cgroup", Entry: 5, Link: 6, Target: "/sys/fs/cgroup", OK: true,
			Slots: []upgrade.GenerationSlot{{Generation: 1, Program: ebpf.ProgramID(7)}, {Generation: 2}},
		}, Misses: 9}, {HookState: upgrade.HookState{Name: "tcx", At: "tcx"}}},
		Generations: []report.Generation{{
			GenerationState: upgrade.GenerationState{Number: 1, Live: true, Digest: "00112233445566778899", Maps: maps,
				Programs: []upgrade.ProgramState{{Name: "mesh_connect4", ID: 7}}},
			Counters: map[string]uint64{"connect": 12, "passed": 0, "refused_no_port": 1},
		}},
		Maps: []engine.MapFill{{Map: "services", Used: 10, Capacity: 20000, Flag: "--max-services", Bytes: 1 << 21}},
		Sources: []report.Source{{
			Name: "file:/m", Path: "/m", Synced: true, Read: at, Objects: map[string]int{"Service": 2, "Pod": 3, "Node": 0},
			Skipped: map[string]int{"apps/v1 Deployment": 1}, Warnings: []string{"web.yaml:1: Service a/b: SCTP is left out"},
			Error: "web.yaml:3: bad", Since: at,
		}},
		Engine: &engine.Stats{Applied: 4, Failed: 1, LastError: "apply service a/b: no room", LastErrorAt: at},
		Workloads: []report.Workload{
			{Name: "default/web-0", Enrolled: true, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
				Netns: "/run/netns/a", Cookie: 5, Interface: 6, SourceChecked: true, Canary: true, Origin: "pods.yaml:1"},
			{Name: "default/host", Reason: "it uses the host network", Code: "host-network", Addresses: []netip.Addr{}},
		},
		Others:  []upgrade.Other{{Hook: "connect4", Cgroup: "/sys/fs/cgroup", Program: 99, Name: "cil_sock4_connect", Link: 3}},
		Damages: []upgrade.Damage{{Path: "calls/tcx", What: "it is gone", Fix: "restart the agent"}},
		Steps:   []upgrade.StepState{{When: time.Hour, Epoch: 3, Generation: 1, Step: "pin-map"}},
	}
}

func printed(t *testing.T, form command.Output, document any, people func(*table)) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := show(&cobra.Command{}, form, &out, document, people); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestStatusForm fails when a field is renamed or lost: others' scripts read them.
func TestStatusForm(t *testing.T) {
	s := aStatus()
	golden(t, "status.json", printed(t, "json", s, nil))
	time.Local = time.UTC
	golden(t, "status.txt", printed(t, "table", s, func(t *table) { printStatus(t, s) }))
}

func TestDumpForms(t *testing.T) {
	port := netip.MustParseAddrPort("10.96.0.10:80")
	endpoint := engine.EndpointView{
		Service: "default/web", Port: port, Protocol: "TCP", Address: netip.MustParseAddrPort("10.0.0.1:8080"), Level: "zone",
		Workload: "default/web-0", Node: "n1", Zone: "z1", Weight: 3, Ready: true, Serving: true,
	}
	services := &report.Services{Version: report.Version, Services: []engine.ServiceView{
		{Name: "default/web", Addresses: []netip.Addr{port.Addr()}, Affinity: time.Hour, ConsistentHash: true, LocalOnly: true,
			Distribution: "same zone", Origin: "web.yaml:1", Problems: []string{"apply service default/web: no room"},
			Ports: []engine.PortView{{Name: "http", Address: port, Protocol: "TCP", Served: true, Level: "zone",
				Levels: []engine.LevelView{{Level: "zone", Endpoints: []engine.EndpointView{endpoint}}}}}},
		{Name: "default/headless", Addresses: []netip.Addr{}},
	}}
	endpoints := &report.Endpoints{Version: report.Version, Endpoints: []engine.EndpointView{endpoint}}
	workloads := &report.Workloads{Version: report.Version, Workloads: aStatus().Workloads}
	flows := &report.Flows{Version: report.Version, Flows: []report.Flow{{
		Client: "default/client", Local: netip.MustParseAddrPort("10.0.0.9:40000"), Protocol: "TCP", Service: "default/web",
		Dialled: port, Endpoint: "default/web-0", Peer: endpoint.Address, State: "established", Stamp: 1, Ran: 1,
		Since: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Cookie: 77,
	}}}
	explanation := &report.Explanation{Version: report.Version, Generation: 1, Canary: 2, Share: 41,
		Explanation: engine.Explanation{Workload: "default/client", Service: "default/web", Outcome: engine.OutcomeSelected,
			Reason: "all ready endpoints", Ports: []engine.ExplainedPort{{Address: port, Outcome: engine.OutcomeSelected,
				Level: "zone", Why: "all ready endpoints", Endpoints: []engine.EndpointView{endpoint}}}}}
	time.Local = time.UTC
	for name, form := range map[string]struct {
		document any
		people   func(*table)
	}{
		"services":  {services, func(t *table) { printServices(t, services) }},
		"endpoints": {endpoints, func(t *table) { printEndpoints(t, endpoints) }},
		"workloads": {workloads, func(t *table) { printWorkloads(t, workloads) }},
		"flows":     {flows, func(t *table) { printFlows(t, flows) }},
		"explain":   {explanation, func(t *table) { printExplanation(t, explanation) }},
	} {
		golden(t, name+".json", printed(t, "json", form.document, nil))
		golden(t, name+".txt", printed(t, "table", form.document, form.people))
	}
}

// TestTableShowsNoControl: names come from files that anybody may have written.
func TestTableShowsNoControl(t *testing.T) {
	table := &table{}
	table.row("a\x1b[2J", "b\nc", "d\te")
	table.line("%s", "x\x9b1m\x7f")
	if got := string(table.text()); strings.ContainsAny(got, "\x1b\x7f\t") || strings.Contains(got, "\x9b") ||
		strings.Count(got, "\n") != 2 {
		t.Errorf("%q", got)
	}
}
