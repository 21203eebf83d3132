// SPDX-License-Identifier: Apache-2.0

// Command evenkeel-cni-conformance tries a chained CNI plugin, ours or another's, against the specification: versions,
// verbs, forms of results, misuse, many at once, and SIGKILL before and after every system call that leaves something.
package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// release is set by the linker (see Makefile); empty otherwise.
var release string

func main() { os.Exit(command.Main(newRootCommand)) }

func newRootCommand(e command.Env) *cobra.Command {
	var s suite
	var out command.Output
	c := command.Root(e, &cobra.Command{
		Use:   "evenkeel-cni-conformance --plugin PATH",
		Short: "Try a chained CNI plugin against the specification",

		Version: command.Release(release),
		Long: `Try a chained CNI plugin against the specification (0.3.0 to 1.1.0): it is given results as a plugin before it in the
chain would make them, in network namespaces of its own, with an interface and addresses. It needs root, and has to run in
a network namespace that may be thrown away: unshare --net.

The exit code is 0 if all that was tried is as the specification has it, 1 if not, 2 if the command line is wrong.`,
		Example: `  unshare --net evenkeel-cni-conformance --plugin /opt/cni/bin/evenkeel-cni
  unshare --net evenkeel-cni-conformance --plugin /opt/cni/bin/portmap -o json
  unshare --net evenkeel-cni-conformance --plugin ./mine --conf '{"mode": "x"}' --args 'K8S_POD_NAMESPACE=a;K8S_POD_NAME=p%d'`,
	})
	c.Args = command.NoArgs
	c.RunE = func(c *cobra.Command, _ []string) error {
		if s.plugin == "" {
			return command.Usage(c, errors.New("--plugin is needed"))
		}
		if err := errors.Join(out.Check(c), s.check()); err != nil {
			return command.Usage(c, err)
		}
		findings, err := s.run(c.Context())
		if err != nil {
			return err
		}
		return report(e, out, s.plugin, findings)
	}
	out.Flag(c)
	f := c.Flags()
	command.PathVar(f, &s.plugin, "plugin", "", "the plugin's binary")
	f.StringVar(&s.conf, "conf", "{}", "keys of its own for its configuration, a JSON object")
	f.StringVar(&s.args, "args", "", "CNI_ARGS; %d in it becomes a number, another for each sandbox")
	f.IntVar(&s.parallel, "parallel", 100, "how many ADDs run at once")
	f.BoolVar(&s.noKill, "no-kill", false, "leave SIGKILL out")
	c.AddCommand(&cobra.Command{
		Use: "supervise", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error { return supervisor.Main(args) },
	})
	return c
}

// finding is one thing that was tried.
type finding struct {
	Group string `json:"group"`
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Why   string `json:"why,omitempty"` // what was found instead
}

func report(e command.Env, out command.Output, plugin string, all []finding) error {
	failed := 0
	for _, f := range all {
		if !f.OK {
			failed++
		}
	}
	if out == "json" {
		document := struct {
			Version  string    `json:"version"`
			Plugin   string    `json:"plugin"`
			OK       bool      `json:"ok"`
			Tried    int       `json:"tried"`
			Failed   int       `json:"failed"`
			Findings []finding `json:"findings"`
		}{"v1", plugin, failed == 0, len(all), failed, all}
		if err := command.JSON(e.Stdout, document); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(e.Stdout, 0, 0, 2, ' ', 0)
		for _, f := range all {
			if !f.OK {
				fmt.Fprintf(w, "%s\t%s\t%s\n", f.Group, f.Name, f.Why)
			}
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		fmt.Fprintf(e.Stdout, "%s: %d of %d as the specification has it\n", plugin, len(all)-failed, len(all))
	}
	if failed > 0 {
		return command.Exit(1)
	}
	return nil
}
