// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
	"github.com/evenkeel/evenkeel/engine/manifest"
)

var update = flag.Bool("update", false, "write golden files")

// Each arm is at each place equally often, and no arm always follows the same one.
func TestRotation(t *testing.T) {
	const n = 5
	places := [n][n]int{}
	follows := [n][n]int{}
	for round := range 2 * n {
		order := rotation(n, round)
		if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, []int{0, 1, 2, 3, 4}) {
			t.Fatalf("round %d: %v", round, order)
		}
		for place, arm := range order {
			places[arm][place]++
			if place > 0 {
				follows[arm][order[place-1]]++
			}
		}
	}
	for arm := range n {
		for place := range n {
			if places[arm][place] != 2 {
				t.Errorf("arm %d is %d times at place %d", arm, places[arm][place], place)
			}
		}
		before := 0
		for _, times := range follows[arm] {
			if times > 0 {
				before++
			}
		}
		if before < 2 {
			t.Errorf("arm %d always follows the same: %v", arm, follows[arm])
		}
	}
}

// The ids are what scripts hold on to.
func TestRowsAreThere(t *testing.T) {
	want := strings.Fields(`
established-p50-source-off established-p50-source-on established-cpu-source-off established-cpu-source-on
connect-ns connect-ns-without-storage
connect-rate-c1 nat-rate-c1 connect-rate-c8 nat-rate-c8 connect-rate-c32 nat-rate-c32 connect-rate-c128 nat-rate-c128
bpf-ns change-p50-100 change-p99-100 change-p50-100k change-p99-100k change-5000 sync-memory sync-yaml restart
maps-100 maps-10k pss-10k maps-100k pss-100k idle-cpu idle-wakeups`)
	var got []string
	seen := map[string]bool{}
	for _, r := range Cost.Rows() {
		if seen[r.ID] {
			t.Errorf("row %s is there twice", r.ID)
		}
		seen[r.ID] = true
		if r.Variant == "" {
			got = append(got, r.ID)
		} else if !slices.Contains(want, r.Variant) {
			t.Errorf("%s is a variant of %s, which is no row", r.ID, r.Variant)
		}
		if r.Unit == "" || r.What == "" || r.Target.Relation == "" || r.samples == nil {
			t.Errorf("row %+v lacks something", r)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	for _, id := range []string{"connect-rate-c8-two-cores-bbr", "established-p50-source-off-bbr", "nat-rate-c1-fortio"} {
		if !seen[id] {
			t.Errorf("no variant %s", id)
		}
	}
}

// So are those of an upgrade.
func TestUpgradeRowsAreThere(t *testing.T) {
	want := strings.Fields(`switch-ns grace-ms indirection-ns rollback-ms gap-ms mixed first-decision-ms migrate-1m-seconds
migrate-lost migrate-updates-per-second imitation-calico-lost imitation-cilium-lost imitation-kmesh-lost imitation-tetragon-lost`)
	var got []string
	for _, r := range Upgrade.Rows() {
		got = append(got, r.ID)
		if r.Unit == "" || r.What == "" || r.Target.Relation == "" || r.samples == nil {
			t.Errorf("row %+v lacks something", r)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestChoose(t *testing.T) {
	ids := func(only []string, all bool) (list []string) {
		t.Helper()
		trials, err := choose(catalogue(), only, all)
		if err != nil {
			t.Fatal(err)
		}
		for _, trial := range trials {
			for _, r := range trial.rows {
				list = append(list, r.ID)
			}
		}
		return list
	}
	if got := ids(nil, false); slices.ContainsFunc(got, func(id string) bool { return strings.Contains(id, "bbr") }) {
		t.Errorf("variants are measured without being asked for: %v", got)
	}
	if got, want := len(ids(nil, true)), len(Cost.Rows()); got != want {
		t.Errorf("all are %d of %d", got, want)
	}
	want := []string{"connect-ns", "connect-rate-c8-two-cores-bbr"}
	if got := ids([]string{"connect-rate-c8-two-cores-bbr", "connect-ns"}, false); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := ids([]string{"maps-*"}, false); len(got) != 3 {
		t.Errorf("maps-* are %v", got)
	}
	for _, pattern := range []string{"connect-rate-c9", "[", ""} {
		var selection *SelectionError
		if _, err := choose(catalogue(), []string{"connect-ns", pattern}, false); !errors.As(err, &selection) ||
			selection.Pattern != pattern {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

// fixed is a trial whose blocks are made up.
func fixed(values map[string][]float64) Series {
	s := Series{Trial: "made up", Values: map[string]map[string][]float64{metricRate: {}}}
	for _, arm := range []string{Plain, Again, Mesh} {
		s.Arms = append(s.Arms, arm)
		s.Values[metricRate][arm] = values[arm]
	}
	return s
}

// A trial in which no mesh does not agree with itself decides nothing, however clear it looks.
func TestGateVoids(t *testing.T) {
	row := Row{
		ID: "row", Unit: unitRatio, Target: sample.Target{Relation: sample.AtLeast, Bound: 0.98}, metric: metricRate,
		samples: ratio(metricRate, Mesh, Plain),
	}
	times := func(v float64) []float64 { return slices.Repeat([]float64{v}, 30) }
	for _, c := range []struct {
		again, mesh float64
		want        sample.Answer
	}{
		{1.000, 0.99, sample.Yes}, {1.019, 0.99, sample.Yes}, {0.981, 0.5, sample.No},
		{1.021, 0.99, sample.Undecided}, {0.979, 0.5, sample.Undecided},
	} {
		d := &Document{}
		s := &session{}
		run := func(context.Context, *session, string) (Series, error) {
			return fixed(map[string][]float64{Plain: times(100), Again: times(100 * c.again), Mesh: times(100 * c.mesh)}), nil
		}
		if err := s.measure(t.Context(), trial{name: "made up", rows: []Row{row}, run: run}, d); err != nil {
			t.Fatal(err)
		}
		if d.Rows[0].OK != c.want {
			t.Errorf("no mesh %v of itself, mesh %v: %v, want %v", c.again, c.mesh, d.Rows[0].OK, c.want)
		}
		if void := c.want == sample.Undecided; void == d.Gates[0].OK || void != (len(d.Problems) == 1) {
			t.Errorf("no mesh %v of itself: gate %+v, problems %v", c.again, d.Gates[0], d.Problems)
		}
	}
}

// A trial that fails leaves its rows undecided, without a value, and says why; the others go on.
func TestFailedTrial(t *testing.T) {
	d := &Document{}
	s := &session{Options: Options{Seed: 7, Quick: true}}
	row := figureOf("row", "ns", "", metricBPF, 1)
	run := func(context.Context, *session, string) (Series, error) { return Series{}, errors.New("no pods") }
	if err := s.measure(t.Context(), trial{name: "bad", rows: []Row{row}, run: run}, d); err != nil {
		t.Fatal(err)
	}
	want := Result{ID: "row", Unit: "ns", ToReach: "<= 1", OK: sample.Undecided,
		Command: "evenkeel bench --only row --seed 7 --quick"}
	if diff := cmp.Diff(want, d.Rows[0]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(d.Problems) != 1 || d.Problems[0].Reason != "no pods" {
		t.Errorf("problems %v", d.Problems)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := s.measure(ctx, trial{name: "bad", rows: []Row{row}, run: run}, d); !errors.Is(err, enough) {
		t.Errorf("after the end of the context: %v", err)
	}
}

func TestExit(t *testing.T) {
	for _, c := range []struct {
		answers []sample.Answer
		want    int
	}{
		{nil, 0}, {[]sample.Answer{sample.Yes, sample.Yes}, 0}, {[]sample.Answer{sample.Yes, sample.Undecided}, 2},
		{[]sample.Answer{sample.Undecided, sample.No, sample.Yes}, 1},
	} {
		d := &Document{}
		for _, a := range c.answers {
			d.Rows = append(d.Rows, Result{OK: a})
		}
		if got := d.Exit(); got != c.want {
			t.Errorf("%v: %d, want %d", c.answers, got, c.want)
		}
	}
}

// A second in which the machine did something: whose it was decides.
func TestDisturbed(t *testing.T) {
	begin := usage{when: time.Unix(0, 0)}
	after := func(busy, stolen, own time.Duration) usage {
		return usage{when: time.Unix(1, 0), busy: busy, stolen: stolen, own: own}
	}
	machine := time.Second * time.Duration(readCPUs(t))
	for _, c := range []struct {
		name  string
		after usage
		ours  time.Duration
		want  string // in the reason, empty if it is none
	}{
		{"idle", after(0, 0, 0), 0, ""},
		{"only ours", after(machine/2, 0, machine/4), machine / 4, ""},
		{"a little", after(machine/2+machine/100, 0, 0), machine / 2, ""},
		{"others", after(machine/2+machine/20, 0, 0), machine / 2, "others used 5.0 %"},
		{"stolen", after(machine/2, machine/50, 0), machine / 2, "hypervisor took 2.0 %"},
	} {
		got := c.after.disturbed(begin, c.ours)
		if c.want == "" && got != "" || c.want != "" && !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func readCPUs(t *testing.T) int {
	t.Helper()
	m, err := readMachine()
	if err != nil {
		t.Fatal(err)
	}
	if m.Kernel == "" || m.CPUs == 0 || m.MemoryMiB == 0 {
		t.Errorf("machine %+v lacks something", m)
	}
	return m.CPUs
}

// Rounds that others disturb are made again; where hardly any is not, all are shown and none is trusted.
func TestRoundsAreMadeAgain(t *testing.T) {
	begin := time.Now()
	// A machine that does nothing but what the blocks say.
	s := &session{usage: func() (usage, error) { return usage{when: begin.Add(time.Since(begin))}, nil }}
	calls := 0
	block := func(context.Context) (map[string]float64, time.Duration, error) {
		calls++
		return map[string]float64{metricRate: float64(calls)}, 0, nil
	}
	series, err := s.time(t.Context(), "made up", []arm{{Plain, block}, {Again, block}}, 6)
	if err != nil {
		t.Fatal(err)
	}
	if calls != 12 || series.Void != 0 || len(series.of(metricRate, Again)) != 6 {
		t.Errorf("%d blocks, %+v", calls, series)
	}
	loud := func(context.Context) (map[string]float64, time.Duration, error) {
		calls++
		return map[string]float64{metricRate: 1}, -time.Hour, nil // so others have used an hour
	}
	// As many as were asked for without patience; with it, until that has run out.
	for _, patience := range []time.Duration{0, 50 * time.Millisecond} {
		calls, s.patience = 0, patience
		series, err = s.time(t.Context(), "made up", []arm{{Plain, loud}}, 4)
		if err != nil {
			t.Fatal(err)
		}
		if calls < 4 || patience == 0 && calls > 4 || s.patience > 0 {
			t.Errorf("patience %v: %d blocks, %v of it is left", patience, calls, s.patience)
		}
		if series.Void != calls || series.Disturbed == "" || len(series.of(metricRate, Plain)) != calls {
			t.Errorf("patience %v: %d blocks, %+v", patience, calls, series)
		}
	}
}

// A machine that becomes slower and faster by a half, from turn to turn and over a round, does not show in what is put
// together; one arm that is slower by 2 % does.
func TestTurnsAreComparedInPairs(t *testing.T) {
	const turns = 25
	random := rand.New(rand.NewPCG(3, 4))
	took := []map[string][]float64{{}, {}, {}}
	for turn := range turns {
		speed := 100 * (1 + 0.5*float64(turn)/turns)
		if turn%7 == 3 {
			speed *= 1.5
		}
		for i, of := range []float64{1, 1, 0.98} {
			v := of * speed * (1 + 0.001*random.NormFloat64())
			if turn == 5*i {
				v *= 0.3 // taken away by the hypervisor
			}
			took[i][metricRate] = append(took[i][metricRate], v)
		}
	}
	got := together([]arm{{name: Plain}, {name: Again}, {name: Mesh}}, took)
	for arm, want := range map[string]float64{Again: 1, Mesh: 0.98} {
		if ratio := got[arm][metricRate] / got[Plain][metricRate]; math.Abs(ratio-want) > 0.001 {
			t.Errorf("%s is %.4f of no mesh, want %.4f", arm, ratio, want)
		}
	}
	// Arms without one to compare with are what they are.
	if got := together([]arm{{name: Mesh}}, took[2:]); got[Mesh][metricRate] != sample.Middle(took[2][metricRate]) {
		t.Errorf("alone it is %v", got)
	}
}

// What the manifests say is what the manifest reader understands, and as much.
func TestScaleIsRead(t *testing.T) {
	var text bytes.Buffer
	of := Scale{Services: 3, Endpoints: 250}
	if err := of.WriteManifests(&text); err != nil {
		t.Fatal(err)
	}
	documents, skipped, err := manifest.Decode(&text, "bench.yaml")
	if err != nil || len(skipped) != 0 {
		t.Fatal(skipped, err)
	}
	kinds := map[string]int{}
	for _, d := range documents {
		kinds[d.Key().Kind]++
	}
	if diff := cmp.Diff(map[string]int{manifest.KindService: 3, manifest.KindEndpointSlice: 9}, kinds); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

// Sample documents that the forms are held to.
func sampleDocument() *Document {
	v := func(f float64) *float64 { return &f }
	return &Document{
		Version: Version, Release: "v1", Started: time.Unix(1_800_000_000, 0).UTC(), Seconds: 61.5, Quick: true, Seed: 42,
		Machine: Machine{Kernel: "6.18.0", CPU: "AMD EPYC", CPUs: 2, MemoryMiB: 24_000, Hypervisor: true,
			Mitigations: []string{"retbleed: untrained return thunk"}, Load: 0.25, Go: "go1.26", MTU: 1500},
		Rows: []Result{
			{ID: "connect-rate-c1", Unit: unitRatio, Value: v(0.991), Low: v(0.985), High: v(0.996), ToReach: ">= 0.98",
				OK: sample.Yes, Command: "evenkeel bench --only connect-rate-c1 --seed 42 --quick"},
			{ID: "connect-ns", Unit: "ns", ToReach: "<= 1200", OK: sample.Undecided,
				Command: "evenkeel bench --only connect-ns --seed 42 --quick"},
		},
		Gates: []Gate{{Trial: "connect-rate-c1", Metric: metricRate, Rows: []string{"connect-rate-c1"}, Value: 1.001,
			Low: 0.995, High: 1.006, OK: true}},
		Problems: []Problem{{Row: "connect-ns", Reason: "no pods"}},
		Trials: []Series{{Trial: "connect-rate-c1", Arms: []string{Plain, Mesh}, Void: 1,
			Values: map[string]map[string][]float64{metricRate: {Plain: {100, 101}, Mesh: {99, 100}}}}},
	}
}

// The form of the document is a promise: docs/CLI.md.
func TestDocumentForm(t *testing.T) {
	got, err := json.MarshalIndent(sampleDocument(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const golden = "testdata/document.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFigure(t *testing.T) {
	for _, c := range []struct {
		v          float64
		unit, want string
	}{
		{0.98765, unitRatio, "0.988"}, {1234.5, "ns", "1234"}, {123.4, "ns", "123"}, {12.34, "MiB", "12.3"},
		{1.2345, "ms", "1.234"}, {0.0123, "%", "0.012"},
	} {
		if got := Figure(c.v, c.unit); got != c.want {
			t.Errorf("%v %s: %s, want %s", c.v, c.unit, got, c.want)
		}
	}
}
