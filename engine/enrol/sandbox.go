// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/bpf"
)

// What a container runtime knows of a pod is a sandbox: one network namespace, for as long as that lives. A pod's name
// comes back in another sandbox, and its path may lead to another namespace; the cookie does neither.

// Cookie returns the number of the network namespace at a path, which the kernel never gives to another until the
// machine boots. What is not a network namespace is refused without being opened.
func Cookie(path string) (uint64, error) {
	ns, err := openNetns(path)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	return cookieOf(ns)
}

// WithdrawCookie is [Withdraw] of the one namespace that has this cookie, whether it lives or not. What is enrolled by
// it under another name stays. It reports whether there was anything to withdraw.
func WithdrawCookie(ctx context.Context, o Options, cookie uint64, pod string) (was bool, err error) {
	links, err := o.lock(ctx, cookie, patience)
	if err != nil {
		return false, fmt.Errorf("withdraw pod %s: %w", pod, err)
	}
	defer func() { err = errors.Join(err, links.Close()) }()
	name, err := lookup[bpf.MeshWorkloadName](o.Maps.Names, cookie)
	if err != nil {
		return false, fmt.Errorf("withdraw pod %s: read map workload_names: %w", pod, err)
	}
	if name != nil && text(name.Pod[:]) != pod {
		return false, nil
	}
	if was, err = withdraw(o, links, cookie); err != nil {
		return was, fmt.Errorf("withdraw pod %s: %w", pod, err)
	}
	return was, nil
}

// WithdrawGone takes out what is enrolled under the name of a pod by namespaces that are no more. One that lives stays:
// it is the pod's next sandbox.
func WithdrawGone(ctx context.Context, o Options, pod string) error {
	cookies, err := findByName(o.Maps, Pod{Name: pod})
	if err != nil {
		return err
	}
	var failed []error
	for _, cookie := range cookies {
		failed = append(failed, withdrawPredecessor(ctx, o, cookie, pod))
	}
	return errors.Join(failed...)
}

// CheckCookie compares the workload of one namespace with what the kernel has of it. It is nil if none is enrolled by
// it; why is empty if it lacks nothing.
func CheckCookie(o Options, cookie uint64) (w *Workload, why string, err error) {
	w, found, err := readOne(o.Maps, cookie)
	if err != nil || w == nil {
		return nil, "", err
	}
	gone, why, err := o.compare(*w, found, &finder{})
	if gone {
		why = "its network namespace is gone"
	}
	return w, why, err
}
