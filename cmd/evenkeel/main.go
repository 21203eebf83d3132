// SPDX-License-Identifier: Apache-2.0

// Command evenkeel is the node agent and everything an operator types: it parses flags, composes engine, upgrade and
// netsim, and holds no logic of its own.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

func main() { os.Exit(command.Main(newRootCommand)) }

func newRootCommand(e command.Env) *cobra.Command {
	plane.Label = releaseName()
	root := command.Root(e, &cobra.Command{
		Use:     "evenkeel",
		Short:   "A service mesh data plane in the kernel that can be replaced while it carries traffic",
		Version: releaseName(),
	})
	root.AddCommand(newAgentCommand(e), newEnrolCommand(e), newWithdrawCommand(e), newStatusCommand(e),
		newDumpCommand(e), newExplainCommand(e), newUninstallCommand(e),
		newVersionCommand(e), newUpgradeCommand(e), newDoctorCommand(e), newSimCommand(e),
		newDemoCommand(), newBenchCommand(e), newCNICommand(e))
	root.InitDefaultCompletionCmd("completion") // cobra adds it later otherwise, and takes any shell's name
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			command.Group(c)
		}
	}
	complete(root)
	return root
}
