// SPDX-License-Identifier: Apache-2.0

package cni

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
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/engine/enrol"
)

const (
	insideVariable = "EVENKEEL_CNI_TEST_NODE"
	pluginVariable = "EVENKEEL_CNI_TEST_PLUGIN"
)

// TestMain is the plugin where it is asked to be, for that has one call in a process. Else it runs the tests once more,
// in network and mount namespaces of their own, which are the node's.
func TestMain(m *testing.M) {
	if os.Getenv(pluginVariable) != "" {
		p := &Plugin{Plane: pinned{}, Stdout: os.Stdout, Stderr: os.Stderr, About: "test"}
		os.Exit(p.Run(context.Background()))
	}
	if os.Geteuid() != 0 || os.Getenv(insideVariable) != "" {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), insideVariable+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	err := again.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
		os.Exit(1)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// pinned is a data plane of two pinned maps. Its links are files: what attaching means is package upgrade's to prove.
type pinned struct{}

func (pinned) Open(_ context.Context, dir string) (enrol.Options, func() error, error) {
	maps := make(map[string]*ebpf.Map)
	for _, name := range []string{"workloads", "workload_names"} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotServing
		}
		if err != nil {
			return enrol.Options{}, nil, err
		}
		maps[name] = m
	}
	o := enrol.Options{
		Maps:  enrol.Maps{Workloads: maps["workloads"], Names: maps["workload_names"]},
		Links: fileLinks{os.Getenv(pluginVariable)},
	}
	return o, func() error { return errors.Join(o.Maps.Workloads.Close(), o.Maps.Names.Close()) }, nil
}

func (p pinned) Lacking(dir string) ([]string, error) {
	_, closeAll, err := p.Open(context.Background(), dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(os.Getenv(pluginVariable), "lacking")); err == nil {
		return []string{"hook connect4 is not attached"}, closeAll()
	}
	return nil, closeAll()
}

// fileLinks are links/POD/HOOK with the inode of the namespace in them.
type fileLinks struct{ dir string }

func (l fileLinks) Lock(_ context.Context, pod string) (enrol.PodLinks, error) {
	dir := filepath.Join(l.dir, "links", pod)
	return fileLinks{dir}, os.MkdirAll(dir, 0o700)
}

func (l fileLinks) Attached(pod string) ([]enrol.Link, error) {
	files, err := filepath.Glob(filepath.Join(l.dir, "links", pod, "*"))
	var all []enrol.Link
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		link := enrol.Link{Hook: filepath.Base(f)}
		if _, err := fmt.Sscan(string(text), &link.Netns, &link.Interface); err != nil {
			return nil, err
		}
		all = append(all, link)
	}
	return all, err
}

func (l fileLinks) Pods() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(l.dir, "links"))
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all, err
}

func (l fileLinks) Attach(_ context.Context, a enrol.Attachment) error {
	var inode uint64
	if a.Interface == 0 {
		var stat unix.Stat_t
		if err := unix.Fstat(a.Netns, &stat); err != nil {
			return err
		}
		inode = stat.Ino
	}
	return os.WriteFile(filepath.Join(l.dir, a.Hook), fmt.Appendf(nil, "%d %d", inode, a.Interface), 0o600)
}

func (l fileLinks) Detach(hooks ...string) error {
	if len(hooks) == 0 {
		return os.RemoveAll(l.dir)
	}
	for _, h := range hooks {
		if err := os.Remove(filepath.Join(l.dir, h)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (l fileLinks) Close() error {
	if err := os.Remove(l.dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// node is where a test's plugin works.
type node struct {
	testing.TB
	pins, dir string
	maps      enrol.Maps
}

// newNode has a data plane that serves if it is asked to.
func newNode(t testing.TB, serves bool) *node {
	t.Helper()
	needRoot(t)
	n := &node{TB: t, dir: t.TempDir()}
	bpffs := filepath.Join(n.dir, "bpf")
	if err := os.Mkdir(bpffs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bpffs, unix.MNT_DETACH) })
	n.pins = filepath.Join(bpffs, "evenkeel")
	if serves {
		n.serve()
	}
	return n
}

func (n *node) serve() {
	n.Helper()
	spec, err := bpf.Spec()
	if err != nil {
		n.Fatal(err)
	}
	if err := os.Mkdir(n.pins, 0o700); err != nil {
		n.Fatal(err)
	}
	maps := make(map[string]*ebpf.Map)
	for _, name := range []string{"workloads", "workload_names"} {
		spec.Maps[name].MaxEntries = 64
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			n.Fatal(err)
		}
		n.Cleanup(func() { m.Close() })
		if err := m.Pin(filepath.Join(n.pins, name)); err != nil {
			n.Fatal(err)
		}
		maps[name] = m
	}
	n.maps = enrol.Maps{Workloads: maps["workloads"], Names: maps["workload_names"]}
}

// decide publishes decisions as the agent does.
func (n *node) decide(all Decisions) {
	n.Helper()
	p, err := NewPublisher(n.pins, n.dir)
	if err != nil {
		n.Fatal(err)
	}
	defer p.Close()
	if err := p.Publish(all); err != nil {
		n.Fatal(err)
	}
}

// enrolled names the pods that are enrolled.
func (n *node) enrolled() string {
	n.Helper()
	all, err := enrol.List(n.maps)
	if err != nil {
		n.Fatal(err)
	}
	var names []string
	for _, w := range all {
		names = append(names, w.Name)
	}
	return strings.Join(names, " ")
}

// empty fails if anything is left of an attachment.
func (n *node) empty() {
	n.Helper()
	if all := n.enrolled(); all != "" {
		n.Errorf("still enrolled: %s", all)
	}
	for _, dir := range []string{"links", "attachments"} {
		if entries, _ := os.ReadDir(filepath.Join(n.dir, dir)); len(entries) > 0 {
			n.Errorf("%s: %v is left", dir, entries)
		}
	}
}

// request is one call of the plugin.
type request struct {
	verb, container, iface, netns, args string
	conf                                map[string]any
	stdin                               []byte // in place of conf
}

// said is what the plugin answered.
type said struct {
	code           int // of the process
	stdout, stderr string
	err            struct {
		CNIVersion   string
		Code         uint
		Msg, Details string
	}
}

const prev = `{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/x","mtu":1450,"socketPath":"/s","pciID":"p","own":{"a":[1]}}],` +
	`"ips":[{"interface":0,"address":"10.9.0.2/24"}],"dns":{"nameservers":["10.96.0.10"]},"odd":"kept"}`

func (n *node) call(r request) said {
	n.Helper()
	conf := map[string]any{
		"cniVersion": "1.1.0", "name": "net", "type": Type, "pinDir": n.pins, "stateDir": n.dir, "runDir": n.dir,
	}
	if r.verb != "GC" && r.verb != "STATUS" {
		conf["prevResult"] = json.RawMessage(prev)
	}
	for k, v := range r.conf {
		if v == nil {
			delete(conf, k)
		} else {
			conf[k] = v
		}
	}
	stdin := r.stdin
	if stdin == nil {
		var err error
		if stdin, err = json.Marshal(conf); err != nil {
			n.Fatal(err)
		}
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), pluginVariable+"="+n.dir, "CNI_COMMAND="+r.verb, "CNI_PATH=/nowhere",
		"CNI_CONTAINERID="+r.container, "CNI_IFNAME="+r.iface, "CNI_NETNS="+r.netns, "CNI_ARGS="+r.args)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.Fatal(err)
	}
	s := said{code: c.ProcessState.ExitCode(), stdout: out.String(), stderr: errs.String()}
	if s.code != 0 {
		if err := json.Unmarshal(out.Bytes(), &s.err); err != nil {
			n.Fatalf("%s: standard output is not an error: %q, %v", r.verb, s.stdout, err)
		}
		if s.err.CNIVersion == "" || s.err.Msg == "" {
			n.Errorf("%s: an error without version or sentence: %s", r.verb, s.stdout)
		}
	}
	return s
}

// newSandbox makes a network namespace, with an address if one is given, whose veth is in the test's own.
func newSandbox(t testing.TB, address string) (path string, drop func()) {
	t.Helper()
	needRoot(t)
	path = filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "unshare", "--net="+path, "true")
	if address != "" {
		addVeth(t, path, address)
	}
	drop = sync.OnceFunc(func() {
		_ = unix.Unmount(path, unix.MNT_DETACH)
		os.Remove(path)
	})
	t.Cleanup(drop)
	return path, drop
}

var veths int

func addVeth(t testing.TB, path, address string) {
	t.Helper()
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	veths++
	name := fmt.Sprintf("eth%d", veths)
	err = netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("veth%d", veths)}, PeerName: name,
		PeerNamespace: netlink.NsFd(int(ns.Fd())),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, "nsenter", "--net="+path, "ip", "address", "add", address, "dev", name, "nodad")
	run(t, "nsenter", "--net="+path, "ip", "link", "set", name, "up")
}

func run(t testing.TB, line ...string) {
	t.Helper()
	if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", line, err, out)
	}
}
