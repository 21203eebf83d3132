// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// chaosBinary has the demo, which watches connections as the chaos suites do.
const chaosBinary = "evenkeel-chaos"

func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Watch two meshes serve the same traffic while their node agents are killed",
		Long:  "Watch two meshes serve the same traffic while their node agents are killed. It turns into 'evenkeel-chaos demo',\nwhich lies beside this binary and takes the same flags.",
		Example: `  sudo evenkeel demo
  sudo evenkeel demo --report demo.html`,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find %s: %w", chaosBinary, err)
			}
			return turnIntoDemo(filepath.Join(filepath.Dir(self), chaosBinary), args)
		},
	}
}

// turnIntoDemo returns only if it fails.
func turnIntoDemo(path string, args []string) error {
	err := unix.Exec(path, append([]string{chaosBinary, "demo"}, args...), os.Environ())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has the demo, and is not there: make build puts it beside evenkeel", path)
	}
	return fmt.Errorf("run %s: %w", path, err)
}
