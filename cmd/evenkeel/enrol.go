// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/footprint"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/engine/expedite"
)

// enrolFlags are those of enrol and withdraw.
type enrolFlags struct {
	dir, netns, pod, manifests, batch string
	sourceCheck, canary               bool
}

// openTime is how long an upgrade that is under way may keep a pod waiting.
const openTime = 10 * time.Second

func newEnrolCommand(e command.Env) *cobra.Command {
	var f enrolFlags
	c := &cobra.Command{
		Use:   "enrol --netns PATH --pod NAMESPACE/NAME",
		Short: "Make a running pod a workload",
		Long: `Make a running pod a workload: what it connects to from now on is governed. Its open sockets go on as they are. No
agent is needed. It can be repeated, after the pod's address has changed for one.

A pod of the host network, with the sidecar or under the care of another mesh is refused; with --manifests those facts
are read from the pod's manifest. So is every pod where another load balancer runs before ours, as Cilium's would. A
single pod that is refused is a failure; in a batch it is an answer.

With --batch - it reads one JSON object a line, {"netns": "/run/netns/x", "pod": "default/x"}, and answers each with
one, {"pod": "default/x", "enrolled": true}, or with "enrolled": false and a "reason". Answers come as pods are done.`,
		Example: `  evenkeel enrol --netns /run/netns/cni-1234 --pod default/web-0
  evenkeel enrol --netns /proc/4711/ns/net --pod default/web-0 --manifests /etc/evenkeel/manifests
  evenkeel enrol --batch - < pods.ndjson`,
		Args: command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c, e, enrolOne) },
	}
	f.register(c)
	command.PathVar(c.Flags(), &f.manifests, "manifests", "",
		"file or directory with the pod's manifest, to decide whether it can be enrolled")
	c.Flags().BoolVar(&f.sourceCheck, "source-check", true,
		"drop packets that leave the pod with a source that is not its own")
	c.Flags().BoolVar(&f.canary, "canary", false, "give the pod every canary generation")
	return c
}

func newWithdrawCommand(e command.Env) *cobra.Command {
	var f enrolFlags
	c := &cobra.Command{
		Use:   "withdraw --netns PATH --pod NAMESPACE/NAME",
		Short: "Take a workload out",
		Long: `Take a workload out: what it connects to from now on is left alone. Its open connections to services go on. What is
not enrolled, or gone, is no error. No agent is needed.

Where the network namespace is gone, the pod is found by its name and the path it was enrolled by; without --netns by
its name alone. With --batch - it reads and answers as enrol does.`,
		Example: `  evenkeel withdraw --netns /run/netns/cni-1234 --pod default/web-0
  evenkeel withdraw --pod default/web-0`,
		Args: command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c, e, withdrawOne) },
	}
	f.register(c)
	return c
}

func (f *enrolFlags) register(c *cobra.Command) {
	command.PathVar(c.Flags(), &f.dir, "pin-dir", enrolment.DefaultDir, "where the data plane is pinned")
	command.PathVar(c.Flags(), &f.netns, "netns", "", "file of the pod's network namespace")
	c.Flags().StringVar(&f.pod, "pod", "", "NAMESPACE/NAME of the pod")
	c.Flags().StringVar(&f.batch, "batch", "", "'-': many pods, from standard input")
}

// act does one pod. Its answer says what became of it; the error is one of the pod, not of the others.
type act func(ctx context.Context, o enrol.Options, pod enrol.Pod) (answer, error)

// run checks the command line, opens the data plane once, and does one pod or many.
func (f *enrolFlags) run(c *cobra.Command, e command.Env, do act) error {
	footprint.Brief()
	if err := f.check(c); err != nil {
		return err
	}
	facts, err := readFacts(f.manifests)
	if err != nil {
		return err
	}
	o, closeAll, err := f.open(c.Context())
	if err != nil {
		return err
	}
	defer func() { _ = closeAll() }() // what was opened is only dropped
	if f.batch != "" {
		b := &batch{options: o, facts: facts, do: do, out: e.Stdout}
		return expedite.Kernel().During(func() error { return b.run(c.Context(), e.Stdin) })
	}
	pod, err := facts.of(enrol.Pod{Name: f.pod, Netns: f.netns})
	if err != nil {
		return err
	}
	a, err := do(c.Context(), o, pod)
	if err != nil {
		return err
	}
	fmt.Fprintln(e.Stdout, a.sentence())
	return nil
}

func (f *enrolFlags) check(c *cobra.Command) error {
	switch {
	case f.batch != "" && f.batch != "-":
		return command.Usage(c, fmt.Errorf("--batch %q: only '-', standard input, is read", f.batch))
	case f.batch != "" && (f.netns != "" || f.pod != ""):
		return command.Usage(c, errors.New("--batch names its pods itself: leave --netns and --pod out"))
	case f.batch != "":
		return nil
	case f.pod == "":
		return command.Usage(c, errors.New("--pod NS/NAME is needed"))
	case f.netns == "" && c.Name() == "enrol":
		return command.Usage(c, errors.New("--netns PATH is needed"))
	}
	if err := enrol.CheckName(f.pod); err != nil {
		return command.Usage(c, err)
	}
	return nil
}

// open opens what enrolment writes and attaches with.
func (f *enrolFlags) open(ctx context.Context) (enrol.Options, func() error, error) {
	o, closeAll, err := enrolment.Open(ctx, f.dir, openTime)
	o.SourceCheck, o.Canary = f.sourceCheck, f.canary
	return o, closeAll, err
}

func enrolOne(ctx context.Context, o enrol.Options, pod enrol.Pod) (answer, error) {
	r, err := enrol.Enrol(ctx, o, pod)
	if err != nil {
		return answer{Pod: pod.Name}, err
	}
	a := answer{Pod: pod.Name, Enrolled: true, Cookie: r.Cookie, Changed: r.Changed}
	for _, ip := range []string{text(r.IP4), text(r.IP6)} {
		if ip != "" {
			a.Addresses = append(a.Addresses, ip)
		}
	}
	for _, ip := range r.Ignored {
		a.Ignored = append(a.Ignored, ip.String())
	}
	return a, nil
}

func withdrawOne(ctx context.Context, o enrol.Options, pod enrol.Pod) (answer, error) {
	was, err := enrol.Withdraw(ctx, o, pod)
	return answer{Pod: pod.Name, Changed: was, withdrawn: true}, err
}
