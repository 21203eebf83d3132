// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/tamper"
)

// run is one run of flows: their processes, what they record, the phases and the faults. The processes end with the
// spec at the latest, but not by its context, which would kill them; if the suite is killed they end by themselves.
type run struct {
	*result.Run
	dir     string
	clients []*flow.Client
	servers []*flow.Server
	// processors tells a machine that stood still from a data plane that did.
	processors *flow.Processors
	// finished tells that servers may have been ended by a fault.
	finished bool
	// files are the recordings.
	files []string
}

// newRun begins a run; it is judged by judge. What a failed spec recorded stays, and its report says where.
func newRun(name string) *run {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "evenkeel-chaos-")
	Expect(err).NotTo(HaveOccurred())
	r := &run{dir: dir, files: []string{filepath.Join(dir, "phases.ndjson")},
		Run: &result.Run{Name: name, Wall: time.Now(), Start: record.Now()}}
	found.Runs = append(found.Runs, r.Run)
	r.processors, err = flow.StartProcessors(context.Background(), instrument(), r.file("processors"))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(r.processors.Stop)
	DeferCleanup(func() {
		if r.End == 0 {
			r.End = record.Now()
		}
		if CurrentSpecReport().Failed() {
			r.Recordings = dir
			AddReportEntry("recordings", "evenkeel-chaos judge "+filepath.Join(dir, "*.ndjson"))
			return
		}
		Expect(os.RemoveAll(dir)).To(Succeed())
	})
	return r
}

// file returns where a process of the run records.
func (r *run) file(what string) string {
	path := filepath.Join(r.dir, fmt.Sprintf("%d-%s.ndjson", len(r.files), what))
	r.files = append(r.files, path)
	return path
}

// serve starts a server in a place.
func (r *run) serve(ctx SpecContext, where flow.Place) *flow.Server {
	GinkgoHelper()
	s, err := flow.StartServer(context.WithoutCancel(ctx), where, instrument(), r.file("server"))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() error {
		err := s.Stop()
		if r.finished {
			return nil
		}
		return err
	})
	r.servers = append(r.servers, s)
	return s
}

// stop ends the servers, so that another run can start its own.
func (r *run) stop() {
	GinkgoHelper()
	for _, s := range r.servers {
		Expect(s.Stop()).To(Succeed())
	}
}

// relay starts a relay in a place.
func (r *run) relay(ctx SpecContext, where flow.Place, to netip.Addr) *tamper.Relay {
	GinkgoHelper()
	t, err := tamper.Start(context.WithoutCancel(ctx), where, instrument(), r.file("relay"), to,
		seed())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(t.Stop)
	return t
}

// watch starts the flows of a plan in a place, and returns when all are established.
func (r *run) watch(ctx SpecContext, where flow.Place, plan *flow.Plan) {
	GinkgoHelper()
	if r.Untimed {
		plan.Flows = unhurried(plan.Flows)
	}
	client, err := flow.StartClient(context.WithoutCancel(ctx), where, instrument(), plan, r.file("client"))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(client.Stop) // where the spec did not come to that
	r.clients = append(r.clients, client)
}

// Periods of a run in which no time is judged, where a flow has none of its own.
const (
	unhurriedStreams  = 50 * time.Millisecond
	unhurriedAttempts = 10 * time.Millisecond
)

// unhurried is what shows as much as flows do where no time is judged, for less of the processors than the faults need. A
// stream that is broken once stays broken, so it may be asked less often. Datagrams and attempts show their own instant
// only: they come as often as probes do.
func unhurried(flows []flow.Spec) []flow.Spec {
	periods := map[string]time.Duration{}
	for _, k := range flow.Kinds() {
		switch {
		case k.Attempts():
			periods[k.Name] = max(k.Period, unhurriedAttempts)
		case k.Protocol.Network == "tcp":
			periods[k.Name] = max(k.Period, unhurriedStreams)
		}
	}
	flows = slices.Clone(flows)
	for i := range flows {
		flows[i].Period = cmp.Or(flows[i].Period, flow.Duration(periods[flows[i].Kind]))
	}
	return flows
}

// mark begins a phase at t.
func (r *run) mark(t int64, p record.Phase) {
	GinkgoHelper()
	p.Time = t
	r.Phases = append(r.Phases, p)
	file, err := os.Create(r.files[0])
	Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	w := record.NewWriter(file, "suite", "")
	for i := range r.Phases {
		w.Write(&r.Phases[i])
	}
	Expect(w.Finish()).To(Succeed())
}

// quiet watches without a fault until that gives a budget within its limit, and begins the phase what. A machine that is
// busy with something else is waited for: a run on it would be void.
func (r *run) quiet(ctx SpecContext, what string) (budget time.Duration) {
	GinkgoHelper()
	var report *record.Report
	for try := 0; ; try++ {
		if try == 20 {
			Fail(fmt.Sprintf("the machine is too busy: %s", report.VoidReasons))
		}
		from := record.Now()
		r.flush() // windows begin
		during(ctx, time.Second)
		r.flush() // and end
		to := record.Now()
		r.Phases = nil
		r.mark(from, record.Phase{Name: "without a fault", FaultFree: true})
		r.mark(to, record.Phase{Name: what})
		var err error
		report, err = record.JudgeFiles(r.files...)
		Expect(err).NotTo(HaveOccurred())
		if !report.Void {
			return time.Duration(report.Budget * float64(time.Millisecond))
		}
		if slices.ContainsFunc(report.Details, letPass) {
			unbroken(r.judge())
		}
	}
}

// letPass tells whether something passed that must be refused. That says the same on the busiest machine, and of flows that
// go on: all else about those is open before they have ended.
func letPass(d record.FlowVerdict) bool { return d.Reason == record.Allowed }

// begin watches without a fault for a moment, and begins the phase what of a run in which no time is judged.
func (r *run) begin(ctx SpecContext, what string) {
	GinkgoHelper()
	r.mark(record.Now(), record.Phase{Name: "without a fault", FaultFree: true})
	during(ctx, 300*time.Millisecond)
	r.flush()
	r.mark(record.Now(), record.Phase{Name: what})
}

// finish is judge for a run whose servers may have been ended by a fault.
func (r *run) finish() *record.Report {
	GinkgoHelper()
	r.finished = true
	report := r.judge()
	for _, s := range r.servers {
		_ = s.Stop() // it may have gone with its pod
	}
	return report
}

// flush returns when all that has happened is in the recordings.
func (r *run) flush() {
	GinkgoHelper()
	for _, c := range r.clients {
		Expect(c.Flush()).To(Succeed())
	}
}

// during lets the flows run for a while.
func during(ctx SpecContext, d time.Duration) {
	GinkgoHelper()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		Fail("the spec ran out of time")
	}
}

// judge ends the flows and says what became of them.
func (r *run) judge() *record.Report {
	GinkgoHelper()
	for _, c := range r.clients {
		Expect(c.Stop()).To(Succeed())
	}
	Expect(r.processors.Stop()).To(Succeed())
	r.End = record.Now()
	var err error
	r.Report, err = record.JudgeFiles(r.files...)
	Expect(err).NotTo(HaveOccurred())
	Expect(r.Draw(r.files...)).To(Succeed())
	if r.Report.Void {
		evidence("void", r.Name+": "+strings.Join(r.Report.VoidReasons, "; "))
	}
	return r.Report
}
