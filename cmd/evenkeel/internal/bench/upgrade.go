// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/stopwatch"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/upgrade/migrate/ledger"
)

// Metrics of an upgrade.
const (
	metricStore       = "store"       // ns
	metricGrace       = "grace"       // ms
	metricRollback    = "rollback"    // ms
	metricGap         = "gap"         // ms
	metricIdleGap     = "idle-gap"    // ms, while nothing changes
	metricIndirection = "indirection" // ns
	metricMixed       = "mixed"       // events
	metricEvents      = "events"
	metricSwaps       = "swaps"
	metricDecision    = "decision"    // ms
	metricMigrate     = "migrate"     // s
	metricUpdates     = "updates"     // per second
	metricLost        = "lost"        // updates
	metricResurrected = "resurrected" // entries, and events that met one
	metricDuplicated  = "duplicated"  // updates
	metricNotes       = "entries"     // that were moved
)

// upgrades is the catalogue of what it costs to replace the data plane while it carries traffic.
func upgrades() []trial {
	trials := []trial{
		{
			name: "generations",
			rows: []Row{
				figureOf("switch-ns", "ns", "one change of the word, with its entry in the log and the name current", metricStore, 100_000),
				figureOf("grace-ms", "ms", "from a change until no program runs that was running before", metricGrace, 50),
				figureOf("indirection-ns", "ns", "word and jump at the hook of an interface, to running the program at once",
					metricIndirection, 20),
				figureOf("rollback-ms", "ms", "from the decision until no program of the bad generation runs", metricRollback, 50),
				figureOf("gap-ms", "ms", "longest wait for an answer on established connections, over an upgrade and a rollback",
					metricGap, 50),
				figureOf("mixed", "1", "events that met another generation than their socket, at 1,000 changes of the word a second",
					metricMixed, 0),
			},
			run: func(ctx context.Context, s *session, name string) (Series, error) { return s.generations(ctx, name) },
		},
		{
			name: "first-decision",
			rows: []Row{figureOf("first-decision-ms", "ms",
				"from the start of a new agent's process until it has adopted what serves and applied its sources",
				metricDecision, 400)},
			run: func(ctx context.Context, s *session, name string) (Series, error) { return s.firstDecision(ctx, name) },
		},
		{
			name: "migration",
			rows: []Row{
				figureOf("migrate-1m-seconds", "s", "copying 2^20 entries to a wider layout and comparing them, synthetic map", metricMigrate, 1.5),
				figureOf("migrate-lost", "1", "updates that it lost, brought back or counted twice", metricLost, 0),
				{ID: "migrate-updates-per-second", Unit: "1/s", What: "updates of two CPUs meanwhile, of hot keys and own, with inserts and removals",
					Target: sample.Target{Relation: sample.AtLeast, Bound: 1e6}, metric: metricUpdates, samples: direct(metricUpdates, Mesh)},
			},
			run: func(ctx context.Context, s *session, name string) (Series, error) { return s.migration(ctx, name) },
		},
	}
	for _, system := range ledger.Imitations() {
		trials = append(trials, trial{
			name: "imitation-" + system,
			rows: []Row{{ID: "imitation-" + system + "-lost", Unit: "1",
				What: "updates that the scheme of " + system + " loses on the same map and traffic, 2^18 entries", metric: metricLost,
				Target: sample.Target{Relation: sample.Above, Bound: 0}, samples: direct(metricLost, system)}},
			run: func(ctx context.Context, s *session, name string) (Series, error) {
				return s.imitation(ctx, name, system)
			},
		})
	}
	return trials
}

// upgradeSite has an agent and one service, whose endpoint is the client itself, so that one process is both ends.
func (s *session) upgradeSite(ctx context.Context) (*site, error) {
	if s.upgrade != nil {
		return s.upgrade, nil
	}
	at, err := s.newSite(ctx, "upgrade", netsim.Evenkeel)
	if err != nil {
		return nil, fmt.Errorf("build pods with the mesh: %w", err)
	}
	client := at.pairs[0].client
	if err := os.WriteFile(filepath.Join(at.lab.Info().Manifests, "echo.yaml"), at.echoManifests(), 0o644); err != nil {
		return nil, fmt.Errorf("write manifests: %w", err)
	}
	if err := at.restartAgent(ctx); err != nil {
		return nil, err
	}
	command := at.lab.Node(nodeName).Command(ctx, s.binary, "enrol", "--netns", client.Netns, "--pin-dir",
		at.lab.Info().Nodes[0].PinDir, "--pod", client.Namespace+"/"+client.Name)
	if out, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("enrol pod %s: %w: %s", client.Name, err, bytes.TrimSpace(out))
	}
	s.upgrade = at
	return at, nil
}

// echoPort is what package stopwatch listens on.
const echoPort = 7100

func (at *site) echoManifests() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "---\napiVersion: v1\nkind: Service\nmetadata: {name: echo, namespace: bench}\nspec:\n  clusterIP: %v\n  ports:\n",
		at.pairs[0].service)
	ports := ""
	for _, protocol := range []string{"TCP", "UDP"} {
		ports += fmt.Sprintf("  - {name: %s, port: %d, protocol: %s}\n", strings.ToLower(protocol), echoPort, protocol)
	}
	fmt.Fprintf(&out, "%s---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"+
		"metadata: {name: echo, namespace: bench, labels: {kubernetes.io/service-name: echo}}\n"+
		"addressType: IPv4\nendpoints:\n- addresses: [%v]\n  conditions: {ready: true}\nports:\n%s",
		ports, at.pairs[0].client.Addresses[0], ports)
	return out.Bytes()
}

// generations measures what changes when one generation takes the place of another, on the product's data plane.
func (s *session) generations(ctx context.Context, trial string) (Series, error) {
	series := Series{Trial: trial, Arms: []string{Mesh}, Values: map[string]map[string][]float64{}}
	at, err := s.upgradeSite(ctx)
	if err != nil {
		return series, err
	}
	if err := at.stopAgent(ctx); err != nil { // the process takes the data plane over
		return series, err
	}
	var limit unix.Rlimit // both ends of each connection are in one process
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return series, fmt.Errorf("read limit of open files: %w", err)
	}
	connections := min(s.effort.connections, int(limit.Max)/2-100)
	info := at.lab.Info().Nodes[0]
	command := at.pairs[0].client.Command(ctx, s.binary, "bench", "node", "switch", "--pin-dir", info.PinDir,
		"--cgroup", info.Cgroup, "--manifests", filepath.Join(at.lab.Info().Manifests, "echo.yaml"),
		"--rounds", strconv.Itoa(s.effort.switches), "--flips", s.effort.flips.String(), "--connections", strconv.Itoa(connections))
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return series, fmt.Errorf("switch generations: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var found stopwatch.Switches
	if err := json.Unmarshal(out, &found); err != nil {
		return series, fmt.Errorf("read what was switched: %w", err)
	}
	for metric, of := range map[string]struct {
		values []float64
		unit   float64 // how many make a second, or one
	}{
		metricStore: {found.Store, 1e9}, metricGrace: {found.Grace, 1e3}, metricRollback: {found.Rollback, 1e3},
		metricGap: {found.Gap, 1e3}, metricIdleGap: {found.Idle, 1e3}, metricIndirection: {found.Indirection, 1},
		metricMixed: {found.Mixed, 1}, metricEvents: {found.Events, 1}, metricSwaps: {found.Changes, 1},
	} {
		for _, v := range of.values {
			series.add(metric, Mesh, v*of.unit)
		}
	}
	return series, nil
}

// firstDecision starts an agent where a data plane serves.
func (s *session) firstDecision(ctx context.Context, trial string) (Series, error) {
	at, err := s.upgradeSite(ctx)
	if err != nil {
		return Series{}, err
	}
	block := func(ctx context.Context) (map[string]float64, time.Duration, error) {
		if err := at.stopAgent(ctx); err != nil {
			return nil, 0, err
		}
		begin := time.Now()
		if err := at.restartAgent(ctx); err != nil {
			return nil, 0, err
		}
		return map[string]float64{metricDecision: 1e3 * time.Since(begin).Seconds()}, 0, nil
	}
	return s.count(ctx, trial, []arm{{Mesh, block}}, s.effort.starts)
}

// pace is how many updates a second two CPUs make while entries move: what is to be reached, and some.
const pace = 1.05e6

// crossing moves a map of package ledger under traffic and accounts for every update.
func (s *session) crossing(ctx context.Context, keys uint32, do func(*ledger.Crossing) (map[string]float64, error)) (
	_ map[string]float64, _ time.Duration, err error) {
	bed, err := ledger.New(ledger.Options{Schema: 1, Keys: keys})
	if err != nil {
		return nil, 0, err
	}
	defer bed.Close()
	c, err := bed.Cross(2)
	if err != nil {
		return nil, 0, err
	}
	traffic := bed.Start(ctx, 2, pace)
	took, err := func() (map[string]float64, error) {
		if err := traffic.Await(100_000); err != nil {
			return nil, err
		}
		took, err := do(c)
		if err != nil {
			return nil, err
		}
		return took, traffic.Await(500_000)
	}()
	if err := errors.Join(err, traffic.Stop()); err != nil {
		return nil, 0, err
	}
	wrong, err := bed.Wrong()
	if err != nil {
		return nil, 0, err
	}
	took[metricLost] = float64(wrong.Lost)
	took[metricResurrected] = float64(wrong.Resurrected)
	took[metricDuplicated] = float64(wrong.Duplicated)
	took[metricNotes] = float64(wrong.Entries)
	return took, 0, nil
}

// migration moves a million entries by the bridge.
func (s *session) migration(ctx context.Context, trial string) (Series, error) {
	block := func(ctx context.Context) (map[string]float64, time.Duration, error) {
		took, used, err := s.crossing(ctx, 1<<20, func(c *ledger.Crossing) (map[string]float64, error) {
			o, err := c.ByBridge(ctx, true)
			lasted := (o.Copy + o.Check).Seconds()
			return map[string]float64{metricMigrate: lasted, metricUpdates: float64(o.Updates) / lasted}, err
		})
		if err == nil { // of a migration everything is counted that is not as it should be
			took[metricLost] += took[metricResurrected] + took[metricDuplicated]
		}
		return took, used, err
	}
	return s.count(ctx, trial, []arm{{Mesh, block}}, s.effort.migrations)
}

// imitation moves fewer entries in the way of another system.
func (s *session) imitation(ctx context.Context, trial, system string) (Series, error) {
	block := func(ctx context.Context) (map[string]float64, time.Duration, error) {
		return s.crossing(ctx, 1<<18, func(c *ledger.Crossing) (map[string]float64, error) {
			return map[string]float64{}, c.Imitate(ctx, system)
		})
	}
	return s.count(ctx, trial, []arm{{system, block}}, s.effort.imitations)
}
