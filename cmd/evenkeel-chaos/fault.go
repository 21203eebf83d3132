// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

func newFaultCommand(e command.Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "fault",
		Short: "Break something in a lab, and put it right again",
	}
	c.AddCommand(newFaultListCommand(e), newFaultInjectCommand(e), newFaultTraceCommand(e), &cobra.Command{
		Use:                "process",
		Short:              "The processes that faults need",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE:               func(c *cobra.Command, args []string) error { return fault.Main(c.Context(), args) },
	})
	return command.Group(c)
}

// faultProcess leads to fault.Main.
func faultProcess() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return []string{self, "fault", "process"}, nil
}

func newFaultListCommand(e command.Env) *cobra.Command {
	var o command.Output
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the faults that there are",
		Args:  command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			if o == "json" {
				return printKindsJSON(e.Stdout)
			}
			return printKinds(e.Stdout)
		},
	}
	o.Flag(c)
	return c
}

func printKinds(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	group := ""
	for _, k := range fault.Kinds() {
		if k.Group != group {
			if group != "" {
				fmt.Fprintln(t)
			}
			group = k.Group
			fmt.Fprintf(t, "%s\tTARGET\tWHAT\tPARAMETERS\n", strings.ToUpper(group))
		}
		var params []string
		for _, p := range k.Params {
			params = append(params, p.Name+"="+p.Default)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.Name, k.Target, k.Summary, strings.Join(params, " "))
	}
	return t.Flush()
}

func printKindsJSON(w io.Writer) error {
	type param struct {
		Name    string `json:"name"`
		Default string `json:"default"`
		Help    string `json:"help"`
	}
	type kind struct {
		Name    string  `json:"name"`
		Group   string  `json:"group"`
		Target  string  `json:"target"`
		Summary string  `json:"summary"`
		Params  []param `json:"params"`
	}
	kinds := []kind{}
	for _, k := range fault.Kinds() {
		one := kind{k.Name, k.Group, k.Target, k.Summary, []param{}}
		for _, p := range k.Params {
			one.Params = append(one.Params, param{p.Name, p.Default, p.Help})
		}
		kinds = append(kinds, one)
	}
	return command.JSON(w, kinds)
}

// labFlags say which lab is meant.
type labFlags struct{ name, binary string }

func (l *labFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&l.name, "lab", "", "name of the lab, as evenkeel sim ls shows it; the only one if it is not given")
	command.PathVar(c.Flags(), &l.binary, "evenkeel", "", "the evenkeel that the lab runs; default: the one beside this program")
}

func (l *labFlags) open() (fault.Environment, error) {
	self, err := faultProcess()
	if err != nil {
		return fault.Environment{}, err
	}
	if l.binary == "" {
		l.binary = filepath.Join(filepath.Dir(self[0]), "evenkeel")
	}
	if l.name == "" {
		names, err := netsim.Names()
		if err != nil {
			return fault.Environment{}, err
		}
		if len(names) != 1 {
			return fault.Environment{}, fmt.Errorf("there are %d labs: say which one with --lab (%s)", len(names),
				strings.Join(names, ", "))
		}
		l.name = names[0]
	}
	lab, err := netsim.Attach(l.name, netsim.Options{Binary: l.binary, Detached: true})
	if err != nil {
		return fault.Environment{}, err
	}
	return fault.Environment{Lab: lab, Binary: l.binary, Self: self}, nil
}

// completeFault proposes faults, then parameters of the one that is there.
func completeFault(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	for _, k := range fault.Kinds() {
		switch {
		case len(args) == 0:
			names = append(names, cobra.CompletionWithDesc(k.Name, k.Summary))
		case len(args) > 1 && k.Name == args[0]:
			for _, p := range k.Params {
				names = append(names, p.Name+"=")
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace*cobra.ShellCompDirective(min(1, len(args)))
}

func newFaultInjectCommand(e command.Env) *cobra.Command {
	var lab labFlags
	var lasts time.Duration
	c := &cobra.Command{
		Use:   "inject FAULT TARGET [PARAMETER=VALUE…] [seed=N]",
		Short: "Inject a fault, wait, and heal it",
		Long: `Inject a fault, wait for --for or until it is interrupted, say how often it has bitten, and heal it. If this program
is killed, the fault is healed all the same, by a process of its own.

Ends with 0 if the fault has bitten and is healed, with 1 if it did nothing or could not be healed.`,
		Example: `  evenkeel-chaos fault inject stop agent/left --for 30s
  evenkeel-chaos fault inject delay wire/left,right delay=20ms jitter=5ms
  evenkeel-chaos fault inject kill-at agent/left call="bpf OBJ_PIN {pins}/links/connect4" when=after`,
		Args: cobra.ArbitraryArgs,

		ValidArgsFunction: completeFault,

		RunE: func(c *cobra.Command, args []string) error {
			// A shell has taken the quotes away that ParseSpec expects around a value with blanks.
			for i, arg := range args {
				if name, value, found := strings.Cut(arg, "="); found && strings.ContainsAny(value, " \t") &&
					!strings.HasPrefix(value, `"`) {
					args[i] = fmt.Sprintf("%s=%q", name, value)
				}
			}
			spec, err := fault.ParseSpec(strings.Join(args, " "))
			if err != nil {
				return command.Usage(c, err)
			}
			env, err := lab.open()
			if err != nil {
				return err
			}
			f, err := env.Build(spec)
			if err != nil {
				return command.Usage(c, err)
			}
			return injectFault(c.Context(), e.Stderr, env, f, lasts)
		},
	}
	lab.add(c)
	c.Flags().DurationVar(&lasts, "for", 0, "how long the fault lasts; until it is interrupted if it is not given")
	return c
}

// healLimit is how long healing may take, and how much longer than asked for a fault lasts if this program is stopped.
const healLimit = time.Minute

func injectFault(ctx context.Context, w io.Writer, env fault.Environment, f fault.Fault, lasts time.Duration) error {
	options := fault.Options{Self: env.Self, Limit: 24 * time.Hour, Observe: func(e fault.Event) {
		fmt.Fprintf(w, "%s %-8s %s", e.Time.Format("15:04:05.000"), e.What, e.Fault)
		if e.What == "heal" { // an error is told at the end
			fmt.Fprintf(w, ": counter %d", e.Active)
		}
		fmt.Fprintln(w)
	}}
	if lasts > 0 {
		options.Limit = lasts + healLimit
	}
	var heal func(context.Context) error
	_, err := options.Inject(ctx, func(h func(context.Context) error) { heal = h }, f)
	if err == nil {
		waiting, cancel := ctx, context.CancelFunc(func() {})
		if lasts > 0 {
			waiting, cancel = context.WithTimeout(ctx, lasts)
		} else {
			fmt.Fprintln(w, "until Ctrl-C")
		}
		<-waiting.Done()
		cancel()
	}
	healing, cancel := context.WithTimeout(context.WithoutCancel(ctx), healLimit)
	defer cancel()
	return errors.Join(err, heal(healing))
}

func newFaultTraceCommand(e command.Env) *cobra.Command {
	var lab labFlags
	var o command.Output
	c := &cobra.Command{
		Use:   "trace agent/NODE",
		Short: "Start an agent again and list the system calls of it that leave something behind",
		Long: `Kill the agent of a node, start it again under supervision and list, in order, its system calls that leave
something behind, until it is ready and at rest. Then it is started once more, without supervision.

The texts are those that kill-at, stop-at and wedge-at take for call=. {pins}, {cgroup}, {source} and {run} are the
places of the lab.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			if len(args) != 1 || !strings.HasPrefix(args[0], "agent/") {
				return command.Usage(c, errors.New("it needs one agent: agent/NODE"))
			}
			env, err := lab.open()
			if err != nil {
				return err
			}
			node := strings.TrimPrefix(args[0], "agent/")
			calls, err := fault.NewAgent(env.Lab, node, env.Binary, env.Self).Trace(c.Context())
			if err != nil {
				return err
			}
			if o == "json" {
				return command.JSON(e.Stdout, calls)
			}
			return printCalls(e.Stdout, calls)
		},
	}
	lab.add(c)
	o.Flag(c)
	return c
}

func printCalls(w io.Writer, calls []supervisor.Call) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NUMBER\tCALL\tRESULT")
	for _, c := range calls {
		result := fmt.Sprint(c.Result)
		if c.Errno != 0 {
			result = c.Errno.Error()
		}
		fmt.Fprintf(t, "%d\t%v\t%s\n", c.Number, c, result)
	}
	return t.Flush()
}
