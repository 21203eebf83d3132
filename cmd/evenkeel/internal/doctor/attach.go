// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
)

// attachments are the checks of what the kernel lets programs be attached to, and of how those that are run on demand
// run.
func (p *patient) attachments() []check {
	return []check{
		{"cgroup links", true, clients, p.tryCgroup},
		{"sk_lookup links", true, "what reaches a pod is not seen", p.trySkLookup},
		{"tcx links", true, "sources of packets cannot be checked; pods can be enrolled with --source-check=false",
			p.tryTcx},
		{"links to maps of sockets", false, "nothing yet: nothing uses it, for sockets of one node are not accelerated; came with 6.10",
			func() (string, error) { return "attach", plane.SockhashLink() }},
		{"running publish", true, "the agent cannot change what is served", p.tryPublish},
		{"reading flows", true, "flows cannot be listed", p.tryFlows},
		{"ending UDP sockets", true, "UDP clients keep sending to endpoints that are gone", p.tryDestroy},
	}
}

// program returns a program that was loaded before.
func (p *patient) program(name string) (*ebpf.Program, error) {
	if p.loaded[name] == nil {
		return nil, fmt.Errorf("program %s was not loaded, see above", name)
	}
	return p.loaded[name], nil
}

// tryCgroup attaches every hook of the node's cgroup to one of its own, below it.
func (p *patient) tryCgroup() (detail string, err error) {
	if p.Cgroup == "" {
		return "", errors.New("there is no cgroup2, see above")
	}
	path, err := os.MkdirTemp(p.Cgroup, "evenkeel-doctor-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	n := 0
	for _, h := range bpf.Hooks() {
		if h.Target != bpf.Cgroup {
			continue
		}
		program, err := p.program(h.Entry)
		if err != nil {
			return "", err
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: h.Attach, Program: program})
		if err != nil {
			return "", fmt.Errorf("attach %s: %w", h.Name, err)
		}
		defer l.Close()
		n++
	}
	return fmt.Sprintf("%d hooks attach", n), nil
}

func (p *patient) trySkLookup() (string, error) {
	program, err := p.program(bpf.Hooks()[bpf.MeshHookHOOK_SK_LOOKUP].Entry)
	if err != nil {
		return "", err
	}
	return "attach", inNewNetns(func(ns *os.File) error {
		l, err := link.AttachNetNs(int(ns.Fd()), program)
		if err != nil {
			return err
		}
		return l.Close()
	})
}

func (p *patient) tryTcx() (string, error) {
	program, err := p.program(bpf.Hooks()[bpf.MeshHookHOOK_TCX].Entry)
	if err != nil {
		return "", err
	}
	const loopback = 1 // the index that it has in every network namespace
	return "attach", inNewNetns(func(*os.File) error {
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: loopback, Program: program, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
		})
		if err != nil {
			return err
		}
		return l.Close()
	})
}

func (p *patient) tryPublish() (string, error) {
	program, err := p.program(bpf.MeshProgPublish)
	if err != nil {
		return "", err
	}
	var request bpf.MeshPublishRequest
	_, err = program.Run(&ebpf.RunOptions{Context: request, ContextOut: &request})
	return "runs", err
}

func (p *patient) tryFlows() (string, error) {
	program, err := p.program(bpf.MeshProgDumpFlows)
	if err != nil {
		return "", err
	}
	return "reads", bpf.Flows(program, p.maps[bpf.MeshMapSockets], func(bpf.MeshFlowRecord) error { return nil })
}

func (p *patient) tryDestroy() (string, error) {
	program, err := p.program(bpf.MeshProgDestroyUdp)
	if err != nil {
		return "", err
	}
	it, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return "", err
	}
	defer it.Close()
	return "runs", inNewNetns(func(*os.File) error {
		file, err := it.Open()
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(io.Discard, file)
		return err
	})
}

// inNewNetns runs do in a network namespace that ends with it. The thread that has entered it ends as well, for it is
// never unlocked; the first one of a process would not end, so another is taken then.
func inNewNetns(do func(ns *os.File) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := inNewNetns(do)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make a network namespace: %w", err)
			}
			ns, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer ns.Close()
			return do(ns)
		}()
	}()
	return <-done
}

// others finds programs of others that run for processes in the cgroup. What cannot be queried is not there: the checks
// have said why.
func (p *patient) others() []Other {
	found := []Other{}
	if p.Cgroup == "" {
		return found
	}
	dir, err := os.Open(filepath.Clean(p.Cgroup))
	if err != nil {
		return found
	}
	defer dir.Close()
	for _, h := range bpf.Hooks() {
		if h.Target != bpf.Cgroup {
			continue
		}
		const effective = 1 // BPF_F_QUERY_EFFECTIVE
		all, err := link.QueryPrograms(link.QueryOptions{
			Target: int(dir.Fd()), Attach: h.Attach, QueryFlags: effective,
		})
		if err != nil {
			continue
		}
		for _, attached := range all.Programs {
			// The kernel keeps 15 bytes of a name.
			if name := nameOf(attached.ID); name != "" && !strings.HasPrefix(h.Entry, name) {
				found = append(found, Other{h.Name, p.Cgroup, uint32(attached.ID), name, enrolment.BalancerName(name)})
			}
		}
	}
	return found
}

func nameOf(id ebpf.ProgramID) string {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return ""
	}
	return info.Name
}
