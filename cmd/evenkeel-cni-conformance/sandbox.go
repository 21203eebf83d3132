// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// sandbox is a network namespace with an interface, as the plugin before would have made it.
type sandbox struct {
	number int
	id     string
	netns  string
}

// newSandbox makes one. Its veth's other end is in the caller's namespace.
func (s *suite) newSandbox() (*sandbox, error) {
	s.sandboxes++
	n := s.sandboxes
	b := &sandbox{n, fmt.Sprintf("conformance-%d", n), filepath.Join(s.dir, fmt.Sprintf("netns-%d", n))}
	if err := os.WriteFile(b.netns, nil, 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.Command("unshare", "--net="+b.netns, "true").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w: %s", err, out)
	}
	ns, err := os.Open(b.netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("host%d", n)}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd())),
	})
	if err != nil {
		return nil, fmt.Errorf("make an interface: %w", err)
	}
	script := fmt.Sprintf("ip address add 10.9.%d.%d/16 dev eth0 && ip address add fd00:9::%x/64 dev eth0 nodad && ip link set eth0 up",
		n/250, n%250+2, n+2)
	if out, err := exec.Command("nsenter", "--net="+b.netns, "sh", "-c", script).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("set the interface up: %w: %s", err, out)
	}
	return b, nil
}

func (b *sandbox) end() {
	_ = unix.Unmount(b.netns, unix.MNT_DETACH) // it may be gone already
	_ = os.Remove(b.netns)
}

// call is one call of the plugin.
type call struct {
	verb, id, iface, netns, args string
	stdin                        []byte
	without                      string // a variable that is left out
	decide                       supervisor.Decide
}

// said is what the plugin answered.
type said struct {
	code           int
	stdout, stderr string
	killed         bool
	calls          []supervisor.Call
	acted          *supervisor.Moment
}

// failure is the error that the plugin printed; nil if it printed none.
func (a said) failure() *failure {
	f := new(failure)
	if json.Unmarshal([]byte(a.stdout), f) != nil || f.Code == nil {
		return nil
	}
	return f
}

type failure struct {
	CNIVersion string `json:"cniVersion"`
	Code       *uint  `json:"code"`
	Msg        string `json:"msg"`
}

const callTime = 30 * time.Second

func (s *suite) call(ctx context.Context, c call) (said, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	line := []string{s.plugin}
	var watched *supervisor.Supervisor
	if c.decide != nil {
		var err error
		if watched, err = supervisor.New(supervisor.Options{Self: []string{s.self, "supervise"}, Decide: c.decide}); err != nil {
			return said{}, err
		}
		defer watched.Close()
		line = watched.Wrap(line...)
	}
	command := exec.CommandContext(ctx, line[0], line[1:]...)
	command.Env = []string{"PATH=" + os.Getenv("PATH")}
	for _, v := range [][2]string{
		{"CNI_COMMAND", c.verb}, {"CNI_CONTAINERID", c.id}, {"CNI_IFNAME", c.iface}, {"CNI_NETNS", c.netns},
		{"CNI_ARGS", c.args}, {"CNI_PATH", filepath.Dir(s.plugin)},
	} {
		if v[0] != c.without {
			command.Env = append(command.Env, v[0]+"="+v[1])
		}
	}
	var out, errs bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(c.stdin), &out, &errs
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, unix.EPIPE) {
		return said{}, fmt.Errorf("start plugin: %w", err)
	}
	a := said{code: command.ProcessState.ExitCode(), stdout: out.String(), stderr: errs.String()}
	if watched != nil {
		if _, err := watched.Wait(ctx); err != nil {
			return said{}, err
		}
		a.calls, a.acted = watched.Calls(), watched.Acted()
		a.killed = a.acted != nil
	}
	return a, nil
}

// base is a call for a sandbox that is as it should be.
func (s *suite) base(verb string, b *sandbox, conf []byte) call {
	args := s.args
	if strings.Contains(args, "%d") {
		args = strings.ReplaceAll(args, "%d", fmt.Sprint(b.number))
	}
	return call{verb: verb, id: b.id, iface: "eth0", netns: b.netns, args: args, stdin: conf}
}

// config is a configuration with a result; nil is none.
func (s *suite) config(version string, result map[string]any, more map[string]any) []byte {
	c := map[string]any{"cniVersion": version, "name": "conformance", "type": filepath.Base(s.plugin)}
	for k, v := range s.keys {
		c[k] = v
	}
	if result != nil {
		c["prevResult"] = result
	}
	for k, v := range more {
		c[k] = v
	}
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // it is made of what was read as JSON
	}
	return text
}

func (s *suite) check() error {
	if err := json.Unmarshal([]byte(s.conf), &s.keys); err != nil {
		return fmt.Errorf("--conf: %w", err)
	}
	path, err := filepath.Abs(s.plugin)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--plugin: %w", err)
	}
	s.plugin = path
	s.self, err = os.Executable()
	return err
}
