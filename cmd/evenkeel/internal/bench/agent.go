// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Metrics of the agent.
const (
	metricMaps      = "maps"      // MiB
	metricPSS       = "pss"       // MiB
	metricAnonymous = "anonymous" // part of that which is no file, MiB
	metricPeak      = "peak"      // of the resident set, MiB
	metricReady     = "ready"     // from the start of the process, seconds
	metricIdleCPU   = "idle"      // share of one CPU, percent
	metricWakeups   = "wakeups"   // of the agent's threads, per connection
	metricBPF       = "bpf"       // nanoseconds per connection
	metricCounted   = "counted"   // the same with the price of counting
	metricNothing   = "nothing"   // what is counted for a program that does nothing, nanoseconds
)

const mebi = 1 << 20

// settle is how long an agent may give memory back after it has become ready.
const settle = 5 * time.Second

// memory starts the agent with a cluster and looks at its maps' memory and, unless they are all that is asked for, at
// its own.
func (s *session) memory(ctx context.Context, trial string, of Scale, mapsOnly bool, args ...string) (
	series Series, err error) {
	at, err := s.engineSite(ctx)
	if err != nil {
		return Series{}, err
	}
	source := filepath.Join(at.lab.Info().Manifests, "cluster.yaml")
	if err := of.writeFile(source); err != nil {
		return Series{}, err
	}
	defer func() { err = errors.Join(err, os.Remove(source)) }()
	block := func(ctx context.Context) (_ map[string]float64, used time.Duration, err error) {
		defer func() {
			ending := context.WithoutCancel(ctx)
			err = errors.Join(err, at.stopAgent(ending), s.uninstall(ending, at))
		}()
		begin := time.Now()
		if err := at.restartAgent(ctx, args...); err != nil {
			return nil, 0, err
		}
		took := map[string]float64{metricReady: time.Since(begin).Seconds()}
		if took[metricMaps], err = mapMemory(at); err != nil {
			return nil, 0, err
		}
		if mapsOnly {
			used, err = load.CPUTime(at.agent)
			return took, used, err
		}
		if err := pause(ctx, settle); err != nil {
			return nil, 0, err
		}
		for _, part := range []struct{ metric, file, key string }{
			{metricPSS, "smaps_rollup", "Pss:"}, {metricAnonymous, "smaps_rollup", "Pss_Anon:"},
			{metricPeak, "status", "VmHWM:"},
		} {
			if took[part.metric], err = procKB(at.agent, part.file, part.key); err != nil {
				return nil, 0, err
			}
		}
		used, err = load.CPUTime(at.agent)
		return took, used, err
	}
	return s.count(ctx, trial, []arm{{Mesh, block}}, s.effort.agents)
}

// pause waits, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// procKB reads a number of kilobytes from a file of /proc/PID, in MiB.
func procKB(pid int, file, key string) (float64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read memory of the agent: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == key {
			kb, err := strconv.ParseFloat(fields[1], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("read memory of the agent: %s has no %s", path, key)
}

// mapMemory is what the kernel accounts for the maps of a site's data plane: all that are pinned, and those that the
// agent has for itself. In MiB.
func mapMemory(at *site) (float64, error) {
	state, err := upgrade.Inspect(at.lab.Info().Nodes[0].PinDir)
	if err != nil {
		return 0, err
	}
	sizes := map[ebpf.MapID]uint64{}
	for _, m := range state.Maps {
		sizes[m.ID] = m.Memory
	}
	for _, g := range state.Generations {
		for _, m := range g.Maps {
			sizes[m.ID] = m.Memory
		}
	}
	if err := heldMaps(at.agent, sizes); err != nil {
		return 0, err
	}
	sum := uint64(0)
	for _, size := range sizes {
		sum += size
	}
	return float64(sum) / mebi, nil
}

// heldMaps adds the maps that a process has open.
func heldMaps(pid int, sizes map[ebpf.MapID]uint64) error {
	found, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return err
	}
	for _, path := range found {
		text, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return fmt.Errorf("read maps of the agent: %w", err)
		}
		var id, size uint64
		for lines := bufio.NewScanner(text); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ":")
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			switch {
			case err != nil:
			case key == "map_id":
				id = n
			case key == "memlock":
				size = n
			}
		}
		text.Close()
		if id != 0 {
			sizes[ebpf.MapID(id)] = size
		}
	}
	return nil
}

// idle watches the agent while traffic that does not concern it goes on, and while there is none.
func (s *session) idle(ctx context.Context, trial string, of Scale) (series Series, err error) {
	at, err := s.meshSite(ctx)
	if err != nil {
		return Series{}, err
	}
	if err := of.writeFile(filepath.Join(at.lab.Info().Manifests, "cluster.yaml")); err != nil {
		return Series{}, err
	}
	if err := at.restartAgent(ctx); err != nil {
		return Series{}, err
	}
	l, err := s.connect(ctx, at, at.pairs[1], true, conditions{congestion: "reno", server: "serve-one"})
	if err != nil {
		return Series{}, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := pause(ctx, settle); err != nil { // the garbage of the start is cleared
		return Series{}, err
	}
	block := func(ctx context.Context) (map[string]float64, time.Duration, error) {
		silence, err := watchAgent(at.agent, func() error { return pause(ctx, s.effort.window) })
		if err != nil {
			return nil, 0, err
		}
		var r load.Result
		traffic, err := watchAgent(at.agent, func() (err error) {
			r, err = l.client.do(load.Block{Kind: load.Connect, To: l.to, Duration: s.effort.window, Charged: l.charged})
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		rest := silence.wakeups * traffic.elapsed.Seconds() / silence.elapsed.Seconds()
		return map[string]float64{
			metricIdleCPU: 100 * traffic.cpu.Seconds() / traffic.elapsed.Seconds(),
			metricWakeups: (traffic.wakeups - rest) / float64(r.Operations),
			metricRate:    float64(r.Operations) / r.Elapsed.Seconds(),
		}, silence.cpu + r.CPU, nil
	}
	return s.count(ctx, trial, []arm{{Mesh, block}}, s.effort.windows)
}

// activity is what an agent did in a while.
type activity struct {
	elapsed, cpu time.Duration
	wakeups      float64 // of its threads
}

func watchAgent(pid int, meanwhile func() error) (activity, error) {
	begin := time.Now()
	cpuBefore, err := load.CPUTime(pid)
	if err != nil {
		return activity{}, err
	}
	before, err := wakeups(pid)
	if err != nil {
		return activity{}, err
	}
	if err := meanwhile(); err != nil {
		return activity{}, err
	}
	after, err := wakeups(pid)
	if err != nil {
		return activity{}, err
	}
	cpuAfter, err := load.CPUTime(pid)
	return activity{time.Since(begin), cpuAfter - cpuBefore, float64(after - before)}, err
}

// wakeups counts how often threads of a process have gone to sleep, and so were woken.
func wakeups(pid int) (uint64, error) {
	found, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, fmt.Errorf("count wake-ups of process %d: %w", pid, os.ErrNotExist)
	}
	sum := uint64(0)
	for _, path := range found {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, fmt.Errorf("count wake-ups: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if value, is := strings.CutPrefix(line, "voluntary_ctxt_switches:"); is {
				n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
				if err != nil {
					return 0, fmt.Errorf("count wake-ups: %s: %w", path, err)
				}
				sum += n
			}
		}
	}
	return sum, nil
}

// programTime has the kernel's own count of what our programs cost, less what it shows for a program that does nothing.
// Nothing else is read from this trial: counting costs 80 to 130 ns a run.
func (s *session) programTime(ctx context.Context, trial string) (series Series, err error) {
	at, err := s.meshSite(ctx)
	if err != nil {
		return Series{}, err
	}
	var arms []arm
	for i, name := range []string{Mesh, Checked} {
		l, err := s.connect(ctx, at, at.pairs[i], true, conditions{congestion: "reno", server: "serve-one"})
		if err != nil {
			return Series{}, err
		}
		defer func() { err = errors.Join(err, l.close()) }()
		arms = append(arms, arm{name, func(context.Context) (map[string]float64, time.Duration, error) {
			return s.programBlock(at, l)
		}})
	}
	counting, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return Series{}, fmt.Errorf("enable BPF statistics: %w", err)
	}
	defer func() { err = errors.Join(err, counting.Close()) }()
	return s.time(ctx, trial, arms, s.effort.rounds)
}

// nothing returns what the kernel counts for a run of a program that does nothing, in nanoseconds: the price of looking
// at the clock.
func nothing() (float64, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return 0, fmt.Errorf("load an empty program: %w", err)
	}
	defer program.Close()
	const runs = 10_000
	if _, _, err := program.Benchmark(make([]byte, 64), runs, nil); err != nil {
		return 0, fmt.Errorf("run an empty program: %w", err)
	}
	stats, err := program.Stats()
	if err != nil {
		return 0, fmt.Errorf("read statistics of an empty program: %w", err)
	}
	if stats.RunCount < runs {
		return 0, fmt.Errorf("of %d runs of an empty program %d were counted", runs, stats.RunCount)
	}
	return float64(stats.Runtime) / float64(stats.RunCount), nil
}

func (s *session) programBlock(at *site, l *link) (map[string]float64, time.Duration, error) {
	idle, err := nothing()
	if err != nil {
		return nil, 0, err
	}
	before, err := entries(at)
	if err != nil {
		return nil, 0, err
	}
	r, err := l.client.do(load.Block{Kind: load.Connect, To: l.to, Duration: s.effort.block, Charged: l.charged})
	if err != nil {
		return nil, 0, err
	}
	after, err := entries(at)
	if err != nil {
		return nil, 0, err
	}
	// The connections that were warming up ran programs, too.
	connections := after["connect4"].runs - before["connect4"].runs
	if connections < uint64(r.Operations) {
		return nil, 0, fmt.Errorf("%d connections ran the connect4 program %d times", r.Operations, connections)
	}
	took := map[string]float64{metricNothing: idle}
	for name, a := range after {
		b := before[name]
		if a.runs == b.runs {
			continue
		}
		runs, spent := float64(a.runs-b.runs)/float64(connections), float64(a.time-b.time)/float64(connections)
		took[name+" runs"], took[name+" time"] = runs, spent
		took[metricCounted] += spent
		took[metricBPF] += spent - runs*idle
	}
	used, err := l.used()
	return took, used, err
}

// counted is what the kernel has counted of a program.
type counted struct {
	runs uint64
	time time.Duration
}

// entries reads what the kernel has counted of the entry programs, by hook. What they jump into is counted with them.
func entries(at *site) (map[string]counted, error) {
	state, err := upgrade.Inspect(at.lab.Info().Nodes[0].PinDir)
	if err != nil {
		return nil, err
	}
	all := map[string]counted{}
	for _, h := range state.Hooks {
		if h.Entry == 0 {
			continue
		}
		program, err := ebpf.NewProgramFromID(h.Entry)
		if err != nil {
			return nil, fmt.Errorf("open program of hook %s: %w", h.Name, err)
		}
		stats, err := program.Stats()
		program.Close()
		if err != nil {
			return nil, fmt.Errorf("read statistics of hook %s: %w", h.Name, err)
		}
		all[h.Name] = counted{stats.RunCount, stats.Runtime}
	}
	return all, nil
}
