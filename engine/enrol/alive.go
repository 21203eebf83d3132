// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// errGone says that a network namespace is no more: nothing leads to it.
var errGone = errors.New("its network namespace is gone")

// finder finds network namespaces by their cookies, for as long as one look at the workloads takes.
type finder struct {
	processes map[uint64]string // path by cookie, of every namespace that a process is in; nil until it is needed
}

// open opens the namespace of a workload. A link that has no namespace any more does not tell whether that ended or
// somebody detached the link: the kernel forgets the namespace in both cases (bpf_netns_link_detach, bpf_netns_link_
// pre_exit, kernel/bpf/net_namespace.c). So what tells is the path that the workload was enrolled by, and where that is
// gone, or leads to another namespace, whether any process is still in it: /proc/PID/ns/net ends with one process.
// It returns errGone if neither finds it.
func (f *finder) open(w Workload) (*os.File, error) {
	ns, err := openCookie(w.Netns, w.Cookie)
	if !errors.Is(err, errGone) {
		return ns, err
	}
	if f.processes == nil {
		if f.processes, err = processNamespaces(); err != nil {
			return nil, err
		}
	}
	path, found := f.processes[w.Cookie]
	if !found {
		return nil, errGone
	}
	return openCookie(path, w.Cookie)
}

// openCookie opens the namespace at a path if it is the one with this cookie. It returns errGone if it is another or
// there is none; every other error leaves that open.
func openCookie(path string, cookie uint64) (*os.File, error) {
	if path == "" {
		return nil, errGone
	}
	ns, err := openNetns(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotNetns) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	found, err := cookieOf(ns)
	if err == nil && found != cookie {
		err = errGone
	}
	if err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// processNamespaces lists the network namespaces that processes are in. A process that ends meanwhile, or that this one
// may not look at, is left out.
func processNamespaces() (map[uint64]string, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	seen := make(map[string]bool)
	all := make(map[uint64]string)
	for _, path := range paths {
		name, err := os.Readlink(path) // net:[INODE]
		if err != nil || seen[name] {
			continue
		}
		ns, err := openNetns(path)
		if err != nil {
			continue
		}
		cookie, err := cookieOf(ns)
		ns.Close()
		if err != nil {
			return nil, fmt.Errorf("look into namespace %s: %w", path, err)
		}
		seen[name], all[cookie] = true, path
	}
	return all, nil
}
