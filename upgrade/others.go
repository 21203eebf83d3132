// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Other is a program of somebody else that runs where an entry program does. What it changes only its owner knows.
type Other struct {
	Hook    string         `json:"hook"`
	Cgroup  string         `json:"cgroup"`
	Program ebpf.ProgramID `json:"program"`
	Name    string         `json:"name"`
	Link    uint32         `json:"link,omitempty"` // 0 if it was attached without one, or to a cgroup above
	Before  bool           `json:"before"`         // it runs before the entry program
}

// queryEffective is BPF_F_QUERY_EFFECTIVE: what runs for a process in the cgroup, inherited from above or not.
const queryEffective = 1

// others finds programs of others on the cgroups that this data plane is attached to.
func (v *view) others() ([]Other, error) {
	var all []Other
	ours := make(map[ebpf.ProgramID]bool)
	for _, l := range v.links {
		ours[l.info.Program] = true
	}
	var links map[ebpf.ProgramID]link.ID
	dirs := make(map[uint64]*os.File) // to find one is to read all mounts
	defer closeAll(dirs)
	for _, hook := range sortedKeys(v.links) {
		l := v.links[hook]
		if l.at != Cgroup || l.defunct {
			continue
		}
		dir := dirs[l.target]
		if dir == nil {
			var err error
			if dir, err = cgroupByID(l.target); errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoHierarchy) {
				continue
			} else if err != nil {
				return nil, err
			}
			dirs[l.target] = dir
		}
		found, err := link.QueryPrograms(link.QueryOptions{
			Target: int(dir.Fd()), Attach: l.attach, QueryFlags: queryEffective,
		})
		if err != nil {
			return nil, fmt.Errorf("query programs of %s: %w", dir.Name(), err)
		}
		before := true // programs are listed in the order in which they run
		for _, p := range found.Programs {
			if ours[p.ID] {
				before = false
				continue
			}
			if links == nil {
				if links, err = linksByProgram(); err != nil {
					return nil, err
				}
			}
			all = append(all, Other{hook, dir.Name(), p.ID, programName(p.ID), uint32(links[p.ID]), before})
		}
	}
	return all, nil
}

// linksByProgram walks the links of the whole kernel, for a query of a cgroup does not tell them.
func linksByProgram() (map[ebpf.ProgramID]link.ID, error) {
	all := make(map[ebpf.ProgramID]link.ID)
	it, deadline := new(link.Iterator), time.Now().Add(patienceWithLinks)
	for {
		for it.Next() {
			if about, err := it.Link.Info(); err == nil {
				all[about.Program] = about.ID
			}
		}
		if err := it.Err(); err == nil {
			return all, nil
		} else if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return nil, fmt.Errorf("list links: %w", err)
		}
		it = &link.Iterator{ID: it.ID}
	}
}

// patienceWithLinks is how long a link may have its number and be no link yet (EAGAIN, kernel/bpf/syscall.c,
// bpf_link_prime and bpf_link_settle): as long as attaching it takes.
const patienceWithLinks = time.Second

// programName is the name that the kernel has, empty if the program is gone.
func programName(id ebpf.ProgramID) string {
	p, err := programByID(id)
	if err != nil || p == nil {
		return ""
	}
	defer p.Close()
	about, err := p.Info()
	if err != nil {
		return ""
	}
	return about.Name
}
