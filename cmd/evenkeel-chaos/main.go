// SPDX-License-Identifier: Apache-2.0

// Command evenkeel-chaos says whether a release may be rolled out: it watches counted flows while faults happen, and
// judges what they recorded.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// release is set by the linker (see Makefile); empty otherwise.
var release string

func main() { os.Exit(command.Main(newRootCommand)) }

func newRootCommand(e command.Env) *cobra.Command {
	root := command.Root(e, &cobra.Command{
		Use:   "evenkeel-chaos",
		Short: "Break what carries traffic, and say what became of every connection",

		Version: command.Release(release),
	})
	root.AddCommand(newRunCommand(e), newDemoCommand(e), newJudgeCommand(e), newFaultCommand(e), newFlowCommand())
	return root
}
