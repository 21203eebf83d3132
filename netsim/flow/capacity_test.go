// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// TestMain makes the test binary what evenkeel-chaos is to StartServer and StartClient, and a place for them.
func TestMain(m *testing.M) {
	args := os.Args[1:]
	if len(args) < 2 || args[0] != "flow" {
		os.Exit(m.Run())
	}
	var err error
	scheduling := Prefer()
	in, out := Streams()
	switch args[1] {
	case "server":
		err = RunServer(context.Background(), in, out, scheduling)
	case "client":
		err = RunClient(context.Background(), in, out, scheduling)
	case "processors":
		err = RunProcessors(context.Background(), in, out)
	case "capacity":
		err = capacity(args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// here is the place of the calling process: its own network namespace.
type here struct{}

func (here) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...)
}

// TestCapacity: a hundred flows at 10 ms, or a thousand at 100 ms, on two processors, and not at the price of a machine:
// client and server together take at most three times what a bare round trip in C does, measured between them.
func TestCapacity(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a quarter of a minute")
	}
	needRoot(t)
	dir := t.TempDir()
	compiler := ""
	for _, name := range []string{"cc", "gcc", "clang", "clang-19"} {
		if path, err := exec.LookPath(name); err == nil && compiler == "" {
			compiler = path
		}
	}
	if compiler == "" {
		t.Fatal("a C compiler is needed for what this is compared with: apt install gcc")
	}
	build := exec.Command(compiler, "-O2", "-o", filepath.Join(dir, "roundtrip"), "testdata/roundtrip.c")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v: %s", err, text)
	}
	cmd := exec.Command("/proc/self/exe", "flow", "capacity", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	text, err := cmd.CombinedOutput()
	t.Logf("\n%s", text)
	if err != nil {
		t.Error(err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("network namespaces need root")
	default:
		t.Skip("network namespaces need root: run make test")
	}
}

// capacity measures in the process's own network namespace.
func capacity(dir string) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up loopback: %w", err)
	}
	const rounds = 3
	cost := map[string][]float64{}
	loads := []struct {
		name   string
		flows  int
		period time.Duration
	}{{"100 flows at 10 ms", 100, 10 * time.Millisecond}, {"1,000 flows at 100 ms", 1000, 100 * time.Millisecond}}
	for range rounds { // interleaved: what else the machine does meets all alike
		for _, load := range loads {
			bare, err := bareRoundTrip(dir)
			if err != nil {
				return err
			}
			ours, err := roundTrip(dir, load.flows, load.period)
			if err != nil {
				return fmt.Errorf("%s: %w", load.name, err)
			}
			fmt.Fprintf(os.Stdout, "%-22s %5.1f us, in C %5.1f us\n", load.name, ours/1000, bare/1000)
			cost[load.name], cost["C"] = append(cost[load.name], ours), append(cost["C"], bare)
		}
	}
	for _, load := range loads {
		ratio := median(cost[load.name]) / median(cost["C"])
		fmt.Fprintf(os.Stdout, "%-22s %.2f of a round trip in C\n", load.name, ratio)
		if ratio > 3 {
			err = fmt.Errorf("%s cost %.2f of a round trip in C, 3 are allowed", load.name, ratio)
		}
	}
	return err
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

func bareRoundTrip(dir string) (ns float64, err error) {
	text, err := exec.Command(filepath.Join(dir, "roundtrip"), "50000").Output()
	if err != nil {
		return 0, fmt.Errorf("round trip in C: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
}

// roundTrip returns the processor time of client and server per frame while all flows run, in nanoseconds.
func roundTrip(dir string, flows int, period time.Duration) (float64, error) {
	const length = 2 * time.Second
	plan := &Plan{}
	for i := range flows {
		plan.Flows = append(plan.Flows, Spec{Name: strconv.Itoa(i), Kind: "trickle", Period: Duration(period),
			To: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(wire.Stream.Port))})
	}
	s, err := StartServer(context.Background(), here{}, "/proc/self/exe", filepath.Join(dir, "server"))
	if err != nil {
		return 0, err
	}
	c, err := StartClient(context.Background(), here{}, "/proc/self/exe", plan, filepath.Join(dir, "client"))
	if err != nil {
		return 0, err
	}
	<-time.After(200 * time.Millisecond) // the first frames have come
	before, err := processorTime(c.PID(), s.PID())
	if err != nil {
		return 0, err
	}
	start := record.Now()
	<-time.After(length)
	frames := float64(record.Now()-start) / float64(period) * float64(flows)
	after, err := processorTime(c.PID(), s.PID())
	if err := errors.Join(err, c.Stop(), s.Stop()); err != nil {
		return 0, err
	}
	return (after - before) / frames, intact(filepath.Join(dir, "client"), flows)
}

// processorTime returns what processes have used so far, in nanoseconds: fields 14 and 15 of /proc/PID/stat, proc(5).
func processorTime(pids ...int) (float64, error) {
	var ticks float64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, field := range fields[11:13] {
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	const perSecond = 100 // USER_HZ
	return ticks / perSecond * 1e9, nil
}

// intact checks that every frame of every flow that was due came back.
func intact(recording string, flows int) error {
	done := 0
	err := record.ReadFile(recording, func(line any) error {
		d, is := line.(*record.Done)
		if !is {
			return nil
		}
		if done++; d.Breaks > 0 || d.Received != d.Sent || d.Sent == 0 {
			return fmt.Errorf("a flow is broken: %+v", d)
		}
		return nil
	})
	if err == nil && done != flows {
		err = fmt.Errorf("%d of %d flows were watched to their end", done, flows)
	}
	return err
}
