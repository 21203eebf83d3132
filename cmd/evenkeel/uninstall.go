// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/cni"
	"github.com/evenkeel/evenkeel/engine/expedite"
	"github.com/evenkeel/evenkeel/upgrade"
)

func newUninstallCommand(e command.Env) *cobra.Command {
	o := upgrade.Options{}
	yes, takeOver, stateDir := false, false, ""
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the data plane of this node",
		Long: `Remove the data plane of this node from the kernel: every program, map, link and pin of it, and nothing else.

Pods reach services no more from then on; connections that they have to endpoints go on. Killed at any point it is
finished by doing it again. On a terminal it asks first.`,
		Example: "  evenkeel uninstall\n  evenkeel uninstall --take-over --yes   # an agent is running",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := os.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(e.Stdout, "nothing is installed at %s\n", o.Dir)
				return nil
			}
			if err := upgrade.CheckPlace(o.Dir); err != nil {
				return err
			}
			if !yes && isPerson(e.Stdin) && !confirm(e, o.Dir) {
				return errors.New("nothing was removed")
			}
			if takeOver {
				var err error
				if o.TakeOver, err = upgrade.FindHolder(o.Dir); err != nil {
					return err
				}
			}
			// First, for as long as it says that pods have to be in a mesh that is gone the CNI plugin lets none start.
			if err := cni.Withdraw(o.Dir, stateDir); err != nil {
				return err
			}
			err := expedite.Kernel().During(func() error { return upgrade.Uninstall(c.Context(), o) })
			if err != nil {
				return explainUninstall(o.Dir, err)
			}
			fmt.Fprintf(e.Stdout, "removed %s\n", o.Dir)
			return nil
		},
	}
	f := c.Flags()
	command.PathVar(f, &o.Dir, "pin-dir", enrolment.DefaultDir, "where the data plane is pinned")
	command.PathVar(f, &stateDir, "state-dir", cni.DefaultStateDir, "where the agent has noted which pods have to be in the mesh; "+
		"that is forgotten")
	f.BoolVar(&takeOver, "take-over", false, "kill the agent that is running, if one is")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func explainUninstall(dir string, err error) error {
	var held *upgrade.HeldError
	var foreign *upgrade.ForeignError
	switch {
	case errors.As(err, &held):
		return fmt.Errorf("%w (--take-over kills it)", err)
	case errors.As(err, &foreign):
		paths := make([]string, len(foreign.Paths))
		for i, p := range foreign.Paths {
			paths[i] = filepath.Join(dir, p)
		}
		return fmt.Errorf("all of the data plane is removed, but not %s: that is not part of it; remove it and do this "+
			"again", strings.Join(paths, ", "))
	}
	return err
}

func confirm(e command.Env, dir string) bool {
	fmt.Fprintf(e.Stderr, "Remove the data plane at %s? Pods reach no service from then on. [y/N] ", dir)
	answer, err := bufio.NewReader(e.Stdin).ReadString('\n')
	return err == nil && strings.EqualFold(strings.TrimSpace(answer), "y")
}

// isPerson reports whether input comes from a terminal.
func isPerson(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
