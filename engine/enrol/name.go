// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/bpf"
)

// A pod's name belongs to one namespace that lives. Its sandbox may be made anew in another namespace before anybody
// withdraws the old one, which the new one then succeeds.

// bearers returns the other namespaces that have the name. One that lives is an error, unless this one had the name
// already; it does not live if the path that it was enrolled by is gone or leads to another. That this is a pod more than
// there may be is a [FullError]; it takes the same look at all names.
func (e *enrolment) bearers(name *bpf.MeshWorkloadName) (gone []uint64, err error) {
	all, pod := 0, Pod{Name: text(name.Pod[:])}
	var cookies []uint64
	err = eachName(e.Maps, func(cookie uint64, n *bpf.MeshWorkloadName) {
		if all++; pod.has(n) {
			cookies = append(cookies, cookie)
		}
	})
	if err != nil {
		return nil, err
	}
	if limit := e.Maps.Limit; e.old == nil && limit > 0 && all > int(limit) {
		return nil, &FullError{Map: mapNames, Max: limit, Flag: bpf.Flag(mapNames)}
	}
	for _, cookie := range cookies {
		if cookie == e.cookie {
			continue
		}
		path, err := bearer(e.Maps, cookie, text(name.Pod[:]))
		switch {
		case err != nil:
			return nil, err
		case path == "":
			gone = append(gone, cookie)
		case e.old == nil:
			return nil, fmt.Errorf("namespace %s is enrolled under that name (cookie %d): withdraw that one first", path, cookie)
		}
	}
	return gone, nil
}

// bearer is the path of a namespace that is enrolled under a name and that this path still leads to, or "".
func bearer(maps Maps, cookie uint64, pod string) (string, error) {
	name, err := lookup[bpf.MeshWorkloadName](maps.Names, cookie)
	if err != nil {
		return "", fmt.Errorf("read map workload_names: %w", err)
	}
	if name == nil || text(name.Pod[:]) != pod {
		return "", nil
	}
	path := text(name.Netns[:])
	ns, err := openCookie(path, cookie)
	if errors.Is(err, errGone) {
		return "", nil
	}
	if err != nil {
		return path, nil // it cannot be told, so it may live
	}
	ns.Close()
	return path, nil
}

// withdrawPredecessor withdraws what had the name of a pod, if it still has and still is gone.
func withdrawPredecessor(ctx context.Context, o Options, cookie uint64, pod string) (err error) {
	links, err := o.lock(ctx, cookie, patience)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, links.Close()) }()
	name, err := lookup[bpf.MeshWorkloadName](o.Maps.Names, cookie)
	if err != nil || name == nil || text(name.Pod[:]) != pod {
		return err
	}
	if path, err := bearer(o.Maps, cookie, pod); err != nil || path != "" {
		return err
	}
	_, err = withdraw(o, links, cookie)
	return err
}
