// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
)

// linkMTU is what netsim gives every link.
const linkMTU = 1500

func readMachine() (Machine, error) {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), MTU: linkMTU, Mitigations: []string{}}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, fmt.Errorf("describe machine: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:])
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, fmt.Errorf("describe machine: %w", err)
	}
	for line := range strings.Lines(string(cpu)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name":
			m.CPU = strings.TrimSpace(value)
		case "flags":
			m.Hypervisor = slices.Contains(strings.Fields(value), "hypervisor")
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("describe machine: %w", err)
	}
	m.MemoryMiB = int(uint64(info.Totalram) * uint64(info.Unit) >> 20)
	m.Load = float64(info.Loads[0]) / (1 << 16)
	found, err := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	if err != nil {
		return m, fmt.Errorf("describe machine: %w", err)
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if active, is := bytes.CutPrefix(bytes.TrimSpace(text), []byte("Mitigation: ")); err == nil && is {
			m.Mitigations = append(m.Mitigations, filepath.Base(path)+": "+string(active))
		}
	}
	return m, nil
}

// usage is what the CPUs of the machine have done, all of them together, since it was started.
type usage struct {
	when         time.Time
	busy, stolen time.Duration
	own          time.Duration // by this process
	kernel       time.Duration // by the kernel's threads
}

// userHZ is the unit of /proc/stat (USER_HZ, the same on every architecture that Go knows).
const userHZ = 100

func readUsage() (usage, error) {
	u := usage{when: time.Now()}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, fmt.Errorf("read CPU usage: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return u, fmt.Errorf("read CPU usage: /proc/stat begins with %q", line)
	}
	// user nice system idle iowait irq softirq steal: proc_stat(5).
	for i, field := range fields[1:9] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return u, fmt.Errorf("read CPU usage: %w", err)
		}
		d := time.Duration(n) * (time.Second / userHZ)
		switch i {
		case 3, 4:
		case 7:
			u.stolen += d
		default:
			u.busy += d
		}
	}
	if u.own, err = load.CPUTime(0); err != nil {
		return u, err
	}
	u.kernel, err = kernelTime()
	return u, err
}

// kernelTime is what threads of the kernel have used. They free the sockets that a block has closed (rcu_preempt,
// kvfree_rcu) and finish its packets (ksoftirqd), so it is no disturbance by others. What a thread did that has ended since is lost, and counts as one.
func kernelTime() (sum time.Duration, err error) {
	found, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("read CPU usage: %w", err)
	}
	const kthreadd = "2"
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a process that has ended meanwhile
		}
		// pid (comm) state ppid: proc_pid_stat(5).
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != kthreadd {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(string(text), &pid); err != nil {
			return 0, fmt.Errorf("read CPU usage: %s: %w", path, err)
		}
		if used, err := load.CPUTime(pid); err == nil {
			sum += used
		}
	}
	return sum, nil
}

// awaitQuiet waits until others leave the machine alone, or patience has run out. Work comes in bursts, and a round that
// is begun within one is lost.
func (s *session) awaitQuiet(ctx context.Context, trial string) error {
	const look = 300 * time.Millisecond
	for s.patience > 0 {
		begin := time.Now()
		before, err := s.usage()
		if err != nil {
			return err
		}
		if err := pause(ctx, look); err != nil {
			return err
		}
		after, err := s.usage()
		if err != nil {
			return err
		}
		s.patience -= time.Since(begin)
		if after.disturbed(before, 0) == "" {
			return nil
		}
		s.progress(trial+": the machine is busy, waiting", 0, 0)
	}
	return nil
}

// Above these shares of the machine a measurement is void.
const (
	maxStolen  = 0.01
	maxForeign = 0.02
)

// disturbed says why what was measured since before is worth nothing, empty if it is not disturbed. ours is what the
// processes of the measurement have used, beside this one.
func (u usage) disturbed(before usage, ours time.Duration) string {
	all := u.when.Sub(before.when) * time.Duration(runtime.NumCPU())
	share := func(d time.Duration) float64 { return float64(d) / float64(all) }
	if stolen := share(u.stolen - before.stolen); stolen > maxStolen {
		return fmt.Sprintf("the hypervisor took %.1f %% of the CPUs away", 100*stolen)
	}
	foreign := share(u.busy - before.busy - (u.own - before.own) - (u.kernel - before.kernel) - ours)
	if foreign > maxForeign {
		return fmt.Sprintf("others used %.1f %% of the CPUs", 100*foreign)
	}
	return ""
}
