// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain makes the test binary the evenkeel of its labs, as far as pods and commands need one.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-test.") {
		os.Exit(m.Run())
	}
	// Whatever else a lab runs must not run the tests again.
	if err := asEvenkeel(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// dieAt is an environment variable: the call of Progress at which a process of asEvenkeel kills itself, from 1.
const dieAt = "NETSIM_TEST_DIE_AT"

// asEvenkeel does what cmd/evenkeel does for `sim serve`, `sim enter` and, for the tests that kill it, `sim up` and
// `sim down`.
func asEvenkeel(args []string) error {
	if args[0] == "leaderless" {
		return leaderless()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) < 2 || args[0] != "sim" {
		return fmt.Errorf("unknown command %q", args)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	options := Options{Binary: self}
	// Dies at the given call of Progress.
	if text, set := os.LookupEnv(dieAt); set {
		last, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		count := newCounter()
		options.Progress = func(string, int, int) {
			if count() == last {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until it has arrived
			}
		}
	}
	switch args = args[1:]; args[0] {
	case "serve": // --pod NAME -- SERVER…
		return Serve(ctx, args[2], args[4:], ReadyFile())
	case "enter": // --netns PATH --cgroup PATH -- COMMAND…
		return Enter(args[2], args[4], args[6:])
	case "up", "up-detached":
		options.Detached = args[0] == "up-detached"
		t, err := ParseFile(args[1])
		if err != nil {
			return err
		}
		_, err = Up(ctx, t, options)
		return err
	case "down":
		return Down(ctx, args[1], options)
	}
	return fmt.Errorf("unknown command %q", args)
}

// leaderless goes on without its main thread until its standard input ends: it looks as if it had ended.
func leaderless() error {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() { // the next time it is, sooner or later
		return unix.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	select {}
}

// needRoot skips a test that makes namespaces where it cannot, and fails it where CI says that it must run.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("network namespaces and cgroups need root")
	}
	t.Skip("network namespaces and cgroups need root: run make test")
}

var labNumber atomic.Int32

// labName returns a name that no other test has, also not one of another process.
func labName() string { return fmt.Sprintf("t-%d-%d", os.Getpid(), labNumber.Add(1)) }

// testOptions run this test binary as evenkeel.
func testOptions(t testing.TB) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Binary: self}
}

// mustParse reads a topology of a new name; text is its spec and what follows.
func mustParse(t testing.TB, name, text string) *Topology {
	t.Helper()
	topology, err := Parse(strings.NewReader(topologyText(name, text)), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return topology
}

func topologyText(name, text string) string {
	return "apiVersion: netsim.evenkeel.io/v1\nkind: Topology\nmetadata: {name: " + name + "}\nspec:\n" +
		strings.TrimLeft(text, "\n")
}

// mustUp makes a lab that goes with the test and leaves nothing.
func mustUp(t testing.TB, text string) *Lab {
	t.Helper()
	needRoot(t)
	l, err := Up(t.Context(), mustParse(t, labName(), text), testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("files of the lab were in %s", l.paths.dir())
		}
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
		mustBeGone(t, l.paths)
	})
	return l
}

// mustBeGone fails if anything of a lab is left: files, mounts, cgroups (and so processes), pins, links.
func mustBeGone(t testing.TB, p paths) {
	t.Helper()
	for _, path := range []string{p.dir(), p.cgroup(), p.pins()} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	entries, err := os.ReadDir(netnsRoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "sim-"+p.lab+"-") {
			t.Errorf("%s/%s is left", netnsRoot, entry.Name())
		}
	}
	mounts, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	if left := slices.IndexFunc(mounts, func(m mount) bool { return strings.HasPrefix(m.point, p.dir()) }); left >= 0 {
		t.Errorf("mount %s is left", mounts[left].point)
	}
}
