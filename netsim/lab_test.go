// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const threeInARow = `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  - {name: c, podCIDRs: [10.10.3.0/24, "fd00:10:3::/64"]}
  wires:
  - {between: [a, b]}
  - {between: [c, b], mtu: 1400}
  pods:
  - {name: client, node: a}
  - {name: near, node: a, serve: ["http :8080", "tcp :9000", "udp :9001"]}
  - {name: far, node: c, count: 2, serve: ["http :8080", "tcp :9000", "udp :9001"]}
  - {name: host, node: b, hostNetwork: true, serve: ["tcp :7000"]}
`

// run runs a command of the test binary's own in a pod or node, and returns what it printed.
func run(t *testing.T, where interface {
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
}, args ...string) string {
	t.Helper()
	cmd := where.Command(t.Context(), args[0], args[1:]...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, text)
	}
	return string(text)
}

// ask dials from a pod, says something and returns the answer.
func ask(t *testing.T, from *Pod, network, address, say string) (string, error) {
	t.Helper()
	var answer string
	err := onThread(func() error {
		if err := enterNamespace(from.Netns); err != nil {
			return err
		}
		conn, err := net.DialTimeout(network, address, 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte(say)); err != nil {
			return err
		}
		buffer := make([]byte, 64<<10)
		n, err := conn.Read(buffer)
		answer = string(buffer[:n])
		return err
	})
	return answer, err
}

func TestPodsReachEachOther(t *testing.T) {
	l := mustUp(t, threeInARow)
	client := l.Pod("client")
	targets := []*Pod{l.Pod("default/near"), l.Pod("far-0"), l.Pod("far-1")}
	for _, pod := range targets {
		for _, address := range pod.Addresses {
			at := func(port string) string { return net.JoinHostPort(address.String(), port) }
			for network, port := range map[string]string{"tcp": "9000", "udp": "9001"} {
				if got, err := ask(t, client, network, at(port), "hello"); err != nil || got != "hello" {
					t.Errorf("%s %s: %q, %v", network, at(port), got, err)
				}
			}
			if got, err := ask(t, client, "udp", at("9001"), "who? me"); err != nil || got != pod.Name+" me" {
				t.Errorf("who is %s: %q, %v", at("9001"), got, err)
			}
			got, err := ask(t, client, "tcp", at("8080"), "GET /path HTTP/1.1\r\nHost: x\r\n\r\n")
			named := fmt.Sprintf(`"pod":%q`, pod.Name)
			if err != nil || !strings.Contains(got, named) || !strings.Contains(got, `"path":"/path"`) {
				t.Errorf("http %s: %q, %v", at("8080"), got, err)
			}
		}
	}
	host := l.Pod("host")
	for i, address := range host.Addresses {
		if address != l.Node("b").Addresses[i] {
			t.Errorf("a pod on hostNetwork has the node's addresses, not %v", host.Addresses)
		}
		at := net.JoinHostPort(address.String(), "7000")
		if got, err := ask(t, client, "tcp", at, "hello"); err != nil || got != "hello" {
			t.Errorf("tcp %s: %q, %v", at, got, err)
		}
	}
}

// Nobody answers for the address of a service: a pod that is not enrolled must see an error, and at once.
func TestServiceAddressesLeadNowhere(t *testing.T) {
	l := mustUp(t, threeInARow)
	for _, address := range []string{"10.96.0.10:80", "[fd00:96::10]:80", "10.10.1.200:80", "[fd00:10:3::99]:80"} {
		start := time.Now()
		_, err := ask(t, l.Pod("client"), "tcp", address, "")
		var timeout net.Error
		if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: %v after %v", address, err, time.Since(start))
		}
	}
}

func TestCommandsRunInTheirPlace(t *testing.T) {
	l := mustUp(t, threeInARow)
	pod, node := l.Pod("far-1"), l.Node("c")
	for _, where := range []struct {
		place
		name, netns, cgroup string
	}{
		{pod.place, "pod", pod.Netns, "/nodes/c/default_far-1"}, {node.place, "node", node.Netns, "/host/c"},
	} {
		got := run(t, where, "sh", "-c", "readlink /proc/self/ns/net; cat /proc/self/cgroup")
		if want := namespaceID(t, where.netns); !strings.HasPrefix(got, want+"\n") {
			t.Errorf("%s runs in %s, not %s", where.name, got, want)
		}
		if !strings.Contains(got, "0::/evenkeel-sim/"+l.Name()+where.cgroup+"\n") {
			t.Errorf("%s runs in cgroups %s", where.name, got)
		}
	}
	var exit *exec.ExitError
	if err := pod.Command(t.Context(), "sh", "-c", "exit 7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit 7: %v", err)
	}
	cmd := pod.Command(t.Context(), "cat")
	cmd.Stdin = strings.NewReader("hello")
	if got, err := cmd.Output(); err != nil || string(got) != "hello" {
		t.Errorf("cat: %q, %v", got, err)
	}
}

func namespaceID(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("net:[%d]", info.Sys().(*syscall.Stat_t).Ino)
}

// The test process must stay where it was: a thread that kept a pod's namespace would show here.
func TestNoThreadStaysInANamespace(t *testing.T) {
	before := namespaceID(t, "/proc/self/ns/net")
	l := mustUp(t, threeInARow)
	run(t, l.Pod("client"), "true")
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		got, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/net")
		if err == nil && got != before {
			t.Errorf("thread %s is in %s, not %s", thread.Name(), got, before)
		}
	}
}

func TestUpTwiceIsRefused(t *testing.T) {
	l := mustUp(t, threeInARow)
	_, err := Up(t.Context(), mustParse(t, l.Name(), threeInARow), testOptions(t))
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "down --name "+l.Name()) {
		t.Errorf("second up: %v", err)
	}
	at := l.Pod("near").Addresses[0].String() + ":9000"
	if got, err := ask(t, l.Pod("client"), "tcp", at, "x"); err != nil || got != "x" {
		t.Errorf("the lab has suffered: %q, %v", got, err)
	}
}

func TestFailedUpLeavesNothing(t *testing.T) {
	needRoot(t)
	name := labName()
	for what, spec := range map[string]string{
		"a command that is not there": `
  nodes: [{name: a, podCIDRs: [10.10.1.0/24]}]
  pods: [{name: p, node: a, command: [/no/such/program]}]
`,
		"an agent that does not start": `
  nodes: [{name: a, podCIDRs: [10.10.1.0/24]}]
  agent: {enabled: true, args: [-no-such-flag]}
`,
	} {
		_, err := Up(t.Context(), mustParse(t, name, spec), testOptions(t))
		if err == nil || !strings.Contains(err.Error(), "no") {
			t.Errorf("%s: %v", what, err)
		}
		p, err := newPaths(name)
		if err != nil {
			t.Fatal(err)
		}
		mustBeGone(t, p)
	}
}

func TestDownIsIdempotent(t *testing.T) {
	l := mustUp(t, threeInARow)
	for range 2 {
		if err := Down(t.Context(), l.Name(), testOptions(t)); err != nil {
			t.Error(err)
		}
		mustBeGone(t, l.paths)
	}
	if _, err := Attach(l.Name(), testOptions(t)); !errors.Is(err, ErrNotFound) {
		t.Errorf("attach to a lab that is down: %v", err)
	}
}

func TestInfoIsJSON(t *testing.T) {
	l := mustUp(t, threeInARow)
	other, err := Attach(l.Name(), testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(other.Info())
	if err != nil {
		t.Fatal(err)
	}
	var told struct {
		Version string
		Pods    []struct {
			Name      string
			Addresses []string
			Processes []struct{ Running bool }
		}
	}
	if err := json.Unmarshal(text, &told); err != nil || told.Version != "v1" || len(told.Pods) != 5 {
		t.Fatalf("%v: %s", err, text)
	}
	if far := told.Pods[2]; far.Name != "far-0" || far.Addresses[0] != "10.10.3.2" || !far.Processes[0].Running {
		t.Errorf("%+v", far)
	}
}

// A lab that was taken down by another, and made again, is not this one any more.
func TestDownLeavesAnotherLabOfTheName(t *testing.T) {
	l := mustUp(t, threeInARow)
	if err := Down(t.Context(), l.Name(), testOptions(t)); err != nil {
		t.Fatal(err)
	}
	other, err := Up(t.Context(), mustParse(t, l.Name(), threeInARow), testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Down(t.Context()); err != nil {
		t.Error(err)
	}
	run(t, other.Pod("client"), "true")
	if err := other.Down(t.Context()); err != nil {
		t.Error(err)
	}
}
