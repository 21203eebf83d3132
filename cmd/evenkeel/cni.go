// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/cni"
	"github.com/evenkeel/evenkeel/cni/install"
)

func newCNICommand(e command.Env) *cobra.Command {
	c := command.Group(&cobra.Command{
		Use:     "cni",
		Short:   "Put the CNI plugin into this node's chain, or take it out",
		Example: "  evenkeel cni install\n  evenkeel cni status",
		Long: `Put the CNI plugin into this node's chain, or take it out.

The plugin makes a pod a workload before its containers start, by the pinned data plane alone: no agent is needed. Which
pods have to be in the mesh the agent says (--enrol-by-label).`,
	})
	c.AddCommand(newCNIInstallCommand(e), newCNIUninstallCommand(e), newCNIStatusCommand(e))
	return c
}

// cniFlags are those that say where things are on the node; the agent has those of the chain, with a prefix.
type cniFlags struct {
	install.Options
	mode        string
	sourceCheck bool
}

// chain registers the flags of the chain.
func (f *cniFlags) chain(s *pflag.FlagSet, prefix string) {
	command.PathVar(s, &f.ConfDir, prefix+"conf-dir", install.DefaultConfDir, "where the runtime looks for network configurations")
	command.PathVar(s, &f.BinDir, prefix+"bin-dir", install.DefaultBinDir, "where the runtime looks for plugins")
	command.PathVar(s, &f.Binary, prefix+"binary", "", "the plugin to install (default: evenkeel-cni beside this binary)")
	s.StringVar(&f.mode, prefix+"mode", string(install.Auto), "how it gets into the chain: drop-in (a file of its own, for "+
		"runtimes with libcni 1.3), rewrite (an entry in the primary's configuration), or auto")
	s.StringSliceVar(&f.Conf.Exempt, prefix+"exempt", []string{"kube-system", "evenkeel-system"}, "namespaces whose pods "+
		"start although the data plane does not serve, so that a node can boot")
}

// complete checks the flags, and finds the plugin.
func (f *cniFlags) complete(c *cobra.Command) error {
	f.Mode = install.Mode(f.mode)
	switch f.Mode {
	case install.Auto, install.DropIn, install.Rewrite:
	default:
		return command.Usage(c, fmt.Errorf("mode %q: auto, drop-in and rewrite are known", f.mode))
	}
	if c.Flags().Changed("source-check") {
		f.Conf.SourceCheck = &f.sourceCheck
	}
	for _, path := range []*string{&f.Conf.PinDir, &f.Conf.StateDir, &f.Conf.RunDir} {
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if f.Binary != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the plugin beside this binary: %w", err)
	}
	f.Binary = filepath.Join(filepath.Dir(self), cni.Type)
	return nil
}

func newCNIInstallCommand(e command.Env) *cobra.Command {
	var f cniFlags
	c := &cobra.Command{
		Use:   "install",
		Short: "Put the CNI plugin into this node's chain",
		Long: `Put the CNI plugin into this node's chain: first the binary, then an entry in the network configuration that the
runtime uses, which is the first by name. What others wrote stays as it is. It can be repeated, and upgrades the binary.

Where the primary plugin writes its configuration anew the entry is gone: an agent with --cni puts it back at once.`,
		Example: "  evenkeel cni install\n  evenkeel cni install --mode drop-in --exempt kube-system,monitoring",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.complete(c); err != nil {
				return err
			}
			changed, err := f.Install()
			if err != nil {
				return err
			}
			s := f.Status()
			was := "is"
			if changed {
				was = "was put"
			}
			fmt.Fprintf(e.Stdout, "%s %s into the chain of %s: %s\n", cni.Type, was, s.Configuration, strings.Join(s.Plugins, ", "))
			return nil
		},
	}
	f.chain(c.Flags(), "")
	command.PathVar(c.Flags(), &f.Conf.PinDir, "pin-dir", cni.DefaultPinDir, "where the data plane is pinned")
	command.PathVar(c.Flags(), &f.Conf.StateDir, "state-dir", cni.DefaultStateDir, "that of the agent")
	command.PathVar(c.Flags(), &f.Conf.RunDir, "run-dir", cni.DefaultRunDir, "that of the agent")
	c.Flags().BoolVar(&f.sourceCheck, "source-check", true, "drop packets that leave a pod with a source that is not its own; "+
		"false leaves that to the primary plugin, whose interfaces are no veths, for one")
	return c
}

func newCNIUninstallCommand(e command.Env) *cobra.Command {
	var f cniFlags
	c := &cobra.Command{
		Use:     "uninstall",
		Short:   "Take the CNI plugin out of this node's chain",
		Example: "  evenkeel cni uninstall",
		Long: `Take the CNI plugin out of this node's chain: first out of every network configuration, then the binary. Pods that run
stay in the mesh; new ones start outside. Stop an agent with --cni first, or it puts the plugin back.`,
		Args: command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.complete(c); err != nil {
				return err
			}
			if err := f.Uninstall(); err != nil {
				return err
			}
			fmt.Fprintf(e.Stdout, "%s is in no chain of %s, and not in %s\n", cni.Type, f.ConfDir, f.BinDir)
			return nil
		},
	}
	f.chain(c.Flags(), "")
	return c
}

func newCNIStatusCommand(e command.Env) *cobra.Command {
	var f cniFlags
	var out command.Output
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show whether the CNI plugin is in this node's chain",
		Example: "  evenkeel cni status -o json | jq .problems",
		Long: `Show whether the CNI plugin is in the chain that the runtime uses, and what is wrong. The exit code is 1 if anything
is.`,
		Args: command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := errors.Join(out.Check(c), f.complete(c)); err != nil {
				return err
			}
			s := f.Status()
			if err := printCNI(e, out, s); err != nil {
				return err
			}
			if len(s.Problems) > 0 {
				return command.Exit(1)
			}
			return nil
		},
	}
	f.chain(c.Flags(), "")
	out.Flag(c)
	return c
}

func printCNI(e command.Env, out command.Output, s install.Status) error {
	if out == "json" {
		return command.JSON(e.Stdout, struct {
			Version string `json:"version"`
			install.Status
		}{"v1", s})
	}
	fmt.Fprintf(e.Stdout, "configuration  %s\nnetwork        %s\nchain          %s\nmode           %s\nruntime        %s\nplugin         %s\n",
		or(s.Configuration, "none"), or(s.Network, "-"), or(strings.Join(s.Plugins, ", "), "-"), s.Mode,
		or(s.Runtime, "none was found running"), s.Binary)
	for _, p := range s.Problems {
		fmt.Fprintln(e.Stdout, "problem:", p)
	}
	return nil
}

func or(text, none string) string {
	if text == "" {
		return none
	}
	return text
}
