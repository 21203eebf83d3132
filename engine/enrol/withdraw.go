// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
)

// Withdraw takes a pod out: what it connects to from now on is left alone. Its sockets that talk to a service go on,
// with the state that they carry. It reports whether there was anything to withdraw; what is gone already is no error.
//
// The pod is found by its namespace. If that is gone as well, it is found by its name and the path that it was enrolled
// by; with an empty path by its name alone. A namespace that is enrolled under another name is an error.
func Withdraw(ctx context.Context, o Options, pod Pod) (was bool, err error) {
	if err := CheckName(pod.Name); err != nil {
		return false, err
	}
	cookies, err := find(o.Maps, pod)
	if err != nil {
		return false, fmt.Errorf("withdraw pod %s: %w", pod.Name, err)
	}
	for _, cookie := range cookies {
		found, err := withdrawNamespace(ctx, o, cookie, pod)
		if err != nil {
			return was, fmt.Errorf("withdraw pod %s: %w", pod.Name, err)
		}
		was = was || found
	}
	return was, nil
}

// find returns the cookies of the namespaces that a pod is, or may be, enrolled by.
func find(maps Maps, pod Pod) ([]uint64, error) {
	if pod.Netns == "" {
		return findByName(maps, pod)
	}
	path, err := filepath.Abs(pod.Netns)
	if err != nil {
		return nil, err
	}
	ns, err := openNetns(path)
	if errors.Is(err, fs.ErrNotExist) {
		return findByName(maps, Pod{Name: pod.Name, Netns: path})
	}
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	cookie, err := cookieOf(ns)
	if err != nil {
		return nil, err
	}
	return []uint64{cookie}, nil
}

// namesAtOnce is how many names one system call reads: each enrolment looks at all of them.
const namesAtOnce = 128

func findByName(maps Maps, pod Pod) (found []uint64, err error) {
	err = eachName(maps, func(cookie uint64, name *bpf.MeshWorkloadName) {
		if pod.has(name) {
			found = append(found, cookie)
		}
	})
	return found, err
}

// has tells whether a name is the pod's, and its path, if the pod says one, too.
func (p Pod) has(name *bpf.MeshWorkloadName) bool {
	return is(name.Pod[:], p.Name) && (p.Netns == "" || is(name.Netns[:], p.Netns))
}

// Names lists the pods that are in a map workload_names, NAMESPACE/NAME.
func Names(names *ebpf.Map) ([]string, error) {
	var all []string
	err := eachName(Maps{Names: names}, func(_ uint64, n *bpf.MeshWorkloadName) { all = append(all, text(n.Pod[:])) })
	return all, err
}

// eachName goes through the names, many at a time: every enrolment does.
func eachName(maps Maps, each func(cookie uint64, name *bpf.MeshWorkloadName)) error {
	var cursor ebpf.MapBatchCursor
	cookies, names := make([]uint64, namesAtOnce), make([]bpf.MeshWorkloadName, namesAtOnce)
	for {
		n, err := maps.Names.BatchLookup(&cursor, cookies, names, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // that is the end of the map
			return fmt.Errorf("read map %s: %w", mapNames, err)
		}
		for i := range n {
			each(cookies[i], &names[i])
		}
		if err != nil {
			return nil
		}
	}
}

// is reports whether a field holds a text.
func is(field []int8, s string) bool {
	if len(s) >= len(field) || field[len(s)] != 0 {
		return false
	}
	for i := range len(s) {
		if field[i] != int8(s[i]) {
			return false
		}
	}
	return true
}

// withdrawNamespace withdraws what is enrolled by a namespace, unless that is another pod.
func withdrawNamespace(ctx context.Context, o Options, cookie uint64, pod Pod) (was bool, err error) {
	links, err := o.lock(ctx, cookie, patience)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, links.Close()) }()
	name, err := lookup[bpf.MeshWorkloadName](o.Maps.Names, cookie)
	if err != nil {
		return false, fmt.Errorf("read map workload_names: %w", err)
	}
	if name != nil && text(name.Pod[:]) != pod.Name {
		return false, fmt.Errorf("namespace %s is enrolled as pod %s: name that one", text(name.Netns[:]), text(name.Pod[:]))
	}
	return withdraw(o, links, cookie)
}

// withdraw undoes an enrolment in reverse order: first the data plane forgets the pod, then its programs go.
func withdraw(o Options, links PodLinks, cookie uint64) (was bool, err error) {
	old, err := lookup[bpf.MeshWorkload](o.Maps.Workloads, byNetns(cookie))
	if err != nil {
		return false, fmt.Errorf("read map workloads: %w", err)
	}
	var host uint32
	if old != nil {
		host = old.Interface
	}
	if err := removeAll(o.Maps, cookie, host); err != nil {
		return false, err
	}
	return old != nil, links.Detach()
}

// removeAll removes every element of a pod.
func removeAll(maps Maps, cookie uint64, host uint32) error {
	if err := remove(maps.Workloads, mapWorkloads, byNetns(cookie)); err != nil {
		return err
	}
	if err := remove(maps.Names, mapNames, cookie); err != nil {
		return err
	}
	return dropInterface(maps, cookie, host)
}

// dropInterface removes the entry of an interface, unless the index has become another pod's.
func dropInterface(maps Maps, cookie uint64, host uint32) error {
	if host == 0 {
		return nil
	}
	found, err := lookup[bpf.MeshWorkload](maps.Workloads, byInterface(host))
	if err != nil {
		return fmt.Errorf("read map workloads: %w", err)
	}
	if found == nil || found.Netns != cookie {
		return nil
	}
	return remove(maps.Workloads, mapWorkloads, byInterface(host))
}
