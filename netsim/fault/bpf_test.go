// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// dial connects the client to the service, by the mesh or not at all.
func (e Environment) dial(t testing.TB) error {
	t.Helper()
	// In the pod's cgroup, because that is where the programs are.
	pod := e.Lab.Pod("client")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := pod.Command(ctx, self(t)[0], "dial", "10.96.0.10:80").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// connect is the process of dial.
func connect(address string) error {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	answer := make([]byte, 5)
	if _, err := conn.Read(answer); err != nil {
		return err
	}
	return conn.Close()
}

// mustServe fails unless the service is reached.
func (e Environment) mustServe(t testing.TB) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("the last attempt: %v", err)
		}
	}()
	eventually(t, "the service is reached", func() bool { err = e.dial(t); return err == nil })
}

// whole fails unless the agent's own view of a node is sound.
func (e Environment) whole(t testing.TB, node string) {
	t.Helper()
	_, n, err := NewAgent(e.Lab, node, e.Binary, nil).info()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(e.Binary, "status", "--pin-dir", n.PinDir, "--admin", n.Agent.Admin).CombinedOutput()
	if err != nil {
		t.Errorf("status of node %s: %v: %s", node, err, out)
	}
}

// numbers of generations differ from one agent to the next.
func withoutGeneration(pins []string) []string {
	pins = slices.Clone(pins)
	for i, p := range pins {
		if fields := strings.SplitN(p, "/", 3); fields[0] == "gen" && len(fields) == 3 {
			pins[i] = "gen/N/" + fields[2]
		}
	}
	return pins
}

// The faults of BPF state, against an agent and its data plane by name. Healed, the node has what it had, and serves.
func TestBPFFaults(t *testing.T) {
	t.Parallel()
	e := lab(t, true)
	e.mustServe(t)
	_, node, err := NewAgent(e.Lab, "a", e.Binary, nil).info()
	if err != nil {
		t.Fatal(err)
	}
	before, err := Pins(node.PinDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"pin-deleted node/a pin=links/connect4", "pin-deleted node/a pin=super", "pin-deleted node/a seed=1",
		"pin-foreign node/a pin=links/connect4 with=map", "pin-foreign node/a pin=maps/workloads with=program",
		"pin-foreign node/a pin=links/sock_ops with=link", "pin-foreign node/a with=directory seed=2",
		"map-full node/a", "map-full node/a map=gen/*/maps/service_ids", "map-full node/a map=gen/*/maps/peers",
		"map-corrupted node/a seed=1", "map-corrupted node/a map=gen/*/maps/slots entries=10 seed=2",
		"link-detached node/a", "link-detached node/a pin=links/sendmsg6",
		"cgroup-recreated node/a",
		"other-program node/a", "other-program node/a order=before hook=peername4",
		"verifier-refusal agent/a", "missing-feature agent/a",
		"pins-deleted node/a", "bpffs-unmounted lab",
	} {
		t.Run(text, func(t *testing.T) {
			i, _ := injectQuiet(t, e.mustBuild(t, text))
			if _, is := i.Fault.(*OtherProgram); is {
				if err := e.dial(t); err != nil {
					t.Error(err)
				}
			}
			mustBite(t, i)
			mustHeal(t, i)
			if text == "pins-deleted node/a" || text == "bpffs-unmounted lab" {
				// The pods have to be enrolled again, which is not the agent's to do.
				e.enrol(t)
			}
			for _, node := range []string{"a", "b"} {
				e.mustRun(t, node)
				e.whole(t, node)
			}
			after, err := Pins(node.PinDir)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(withoutGeneration(before), withoutGeneration(after)); diff != "" {
				t.Errorf("pins (-before +healed):\n%s", diff)
			}
			rest, err := filepath.Glob(filepath.Join(filepath.Dir(node.PinDir), "fault*"))
			if err != nil || len(rest) > 0 {
				t.Errorf("%q are left, %v", rest, err)
			}
			e.mustServe(t)
		})
	}
}

// enrol enrols the client again.
func (e Environment) enrol(t testing.TB) {
	t.Helper()
	pod := e.Lab.Pod("client")
	info, node, err := NewAgent(e.Lab, "a", e.Binary, nil).info()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nsenter", "--net="+node.Netns, e.Binary, "enrol", "--pin-dir", node.PinDir, "--netns", pod.Netns,
		"--pod", "default/client", "--manifests", info.Manifests).CombinedOutput()
	if err != nil {
		t.Fatalf("enrol: %v: %s", err, out)
	}
}

// What is there does what it is said to: each of these is a fault that did not bite, and is caught.
func TestBPFInert(t *testing.T) {
	e := lab(t, true)
	_, node, err := NewAgent(e.Lab, "a", e.Binary, nil).info()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fault string
		undo  func(Fault) error
	}{
		{"other-program node/a hook=sendmsg6", func(Fault) error { return nil }}, // nobody sends
		{"map-full node/a", func(f Fault) error { return f.Heal(context.Background()) }},
		{"pin-foreign node/a pin=super", func(f Fault) error { return f.(*Exchange).exchange() }},
	} {
		t.Run(c.fault, func(t *testing.T) {
			i, h := injectQuiet(t, e.mustBuild(t, c.fault))
			if err := c.undo(i.Fault); err != nil {
				t.Fatal(err)
			}
			if err := h.heal(t.Context()); !errors.Is(err, ErrInert) {
				t.Errorf("healing: %v", err)
			}
		})
	}
	for _, text := range []string{
		"map-full node/a map=gen/*/maps/endpoints", // all there from the start
		"link-detached node/a pin=links/sk_msg",    // the kernel cannot
		"map-corrupted node/a map=maps/sockets",    // of sockets
		"other-program node/a hook=nothing",
	} {
		f := e.mustBuild(t, text)
		if err := f.Prepare(t.Context()); err == nil {
			t.Errorf("%s: it says that it can be done", text)
		} else {
			t.Logf("%s: %v", text, err)
		}
	}
	_, h := injectQuiet(t, e.mustBuild(t, "bpffs-unmounted lab"))
	dir := filepath.Dir(node.PinDir)
	if err := errors.Join(unix.Unmount(dir, 0), unix.Mount("x", dir, "bpf", 0, "")); err != nil {
		t.Fatal(err)
	}
	if err := h.heal(t.Context()); !errors.Is(err, ErrInert) {
		t.Errorf("healing: %v", err)
	}
}
