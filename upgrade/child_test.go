// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// job is what a test has another process do: this test binary, started again.
type job struct {
	Do     string // open, load, uninstall, attach: then say so and wait to be told to end; connect: do so until then; traffic: see traffic_test.go
	Dir    string
	Cgroup string
	Kill   int           // kill yourself after this many steps, 0 for never
	Busy   int           // threads that connect, or make traffic
	Rest   time.Duration // of such a thread after ten connections
}

const jobVariable = "EVENKEEL_TEST_JOB"

func TestMain(m *testing.M) {
	text, isChild := os.LookupEnv(jobVariable)
	if !isChild {
		os.Exit(m.Run())
	}
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (j job) run(ctx context.Context) error {
	steps := 0
	o := Options{Dir: j.Dir, Cgroup: j.Cgroup, Trace: func(Step, string) {
		if steps++; steps == j.Kill {
			panic(unix.Kill(unix.Getpid(), unix.SIGKILL)) // does not return
		}
	}}
	switch j.Do {
	case "hold":
		if err := holdSockets(j.Busy); err != nil {
			return err
		}
	case "connect":
		return connectUntilTold(j.Busy, j.Rest)
	case "traffic":
		return j.makeTraffic()
	case "attach":
		w, err := OpenWriter(ctx, j.Dir)
		if err != nil {
			return err
		}
		defer w.Close()
		w.Pods.journal.trace = o.Trace
		if err := attachNew(ctx, w.Pods); err != nil {
			return err
		}
	case "up", "back", "adopt1", "adopt2":
		return j.cross(ctx, o, &steps)
	case "more", "fewer":
		return j.rehook(ctx, o, &steps)
	case "uninstall":
		if err := Uninstall(ctx, o); err != nil {
			return err
		}
	default:
		s, err := Open(ctx, tinyPlane(_TinyBytes), o)
		if err != nil {
			return err
		}
		defer s.Close()
		if j.Do == "load" {
			if err := upgradeOnce(ctx, s); err != nil {
				return err
			}
		}
	}
	fmt.Fprintln(os.Stdout, "done", steps)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// cross goes from one schema to another, or takes over whatever is there.
func (j job) cross(ctx context.Context, o Options, steps *int) error {
	object := _TinyState2Bytes
	if j.Do == "adopt1" {
		object = _TinyState1Bytes
	}
	o.Accept = AcceptAny
	s, err := Open(ctx, tinyPlane(object), o)
	if err != nil {
		return err
	}
	defer s.Close()
	switch j.Do {
	case "up":
		_, err = s.Upgrade(ctx, Attempt{})
	case "back":
		err = s.Rollback(ctx, Attempt{}, "test")
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "done", *steps)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// upgradeOnce serves a second generation of the same release and retires the first.
func upgradeOnce(ctx context.Context, s *Store) error {
	word := s.Word()
	old := word.Serve()
	n, err := word.Next(s.Last())
	if err != nil {
		return err
	}
	if err := s.Load(ctx, n); err != nil {
		return err
	}
	if err := s.Swap(word, word.Upgrade(n)); err != nil {
		return err
	}
	word = s.Word()
	raised, err := word.Raise(n)
	if err != nil {
		return err
	}
	if word != raised {
		if err := s.Swap(word, raised); err != nil {
			return err
		}
	}
	return s.Retire(ctx, old)
}

// attachNew attaches pod "a" to a namespace that lives as long as this process.
func attachNew(ctx context.Context, p *Pods) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	const loopback = 1
	return errors.Join(
		p.Attach(ctx, Target{Pod: "a", Hook: "lookup", Netns: int(ns.Fd())}),
		p.Attach(ctx, Target{Pod: "a", Hook: "tcx", Interface: loopback}),
	)
}

// connectUntilTold makes UDP sockets, connects each and asks for its peer a few times: every call runs a hook.
func connectUntilTold(threads int, rest time.Duration) error {
	var group sync.WaitGroup
	stop := make(chan struct{})
	errs := make(chan error, threads)
	for range threads {
		group.Go(func() {
			for { // at least once, however early it is told
				for range 10 {
					if err := connectOnce(20); err != nil {
						errs <- err
						return
					}
				}
				select {
				case <-stop:
					return
				case <-time.After(rest):
				}
			}
		})
	}
	fmt.Fprintln(os.Stdout, "done 0")
	_, err := io.Copy(io.Discard, os.Stdin)
	close(stop)
	group.Wait()
	close(errs)
	return errors.Join(err, <-errs)
}

func connectOnce(asked int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}); err != nil {
		return err
	}
	for range asked {
		if _, err := unix.Getpeername(fd); err != nil {
			return err
		}
	}
	return nil
}

// child is a process that does a job.
type child struct {
	*exec.Cmd
	stdin  io.WriteCloser
	out    *bufio.Reader
	stderr *strings.Builder
}

// start starts a job in a cgroup, or where the test is if that is empty.
func start(t *testing.T, j job, in string) *child {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{Cmd: exec.Command("/proc/self/exe"), stderr: new(strings.Builder)}
	c.Env = append(os.Environ(), jobVariable+"="+string(text))
	c.Stderr = c.stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL} // when this thread ends: no test may end one
	if j.Do == "traffic" {
		c.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
	}
	if in != "" {
		dir, _, err := openCgroup(in)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.stdin, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatalf("start child: %v", err)
	}
	c.out = bufio.NewReader(stdout)
	t.Cleanup(func() { // if the test has not waited for it
		if c.ProcessState == nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	return c
}

// done waits until the job is done and returns how many steps it took; killed tells that it did not come to that.
func (c *child) done(t *testing.T) (steps int, killed bool) {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err == nil {
		if _, err := fmt.Sscanf(line, "done %d", &steps); err != nil {
			t.Fatalf("child says %q: %v", line, err)
		}
		return steps, false
	}
	err = c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == unix.SIGKILL {
		return 0, true
	}
	t.Fatalf("child: %v: %s", err, c.stderr)
	return 0, false
}

// end tells a child to end and waits for it.
func (c *child) end(t *testing.T) {
	t.Helper()
	c.stdin.Close()
	if _, err := io.Copy(io.Discard, c.out); err != nil {
		t.Errorf("read from child: %v", err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("child: %v: %s", err, c.stderr)
	}
}

// eventually waits for something that the kernel does in its own time.
func eventually(t *testing.T, what string, true func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !true() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not after 10 s: %s", what)
		}
	}
}
