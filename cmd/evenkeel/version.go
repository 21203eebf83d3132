// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// release is set by the linker (see Makefile); empty otherwise.
var release string

// versionDocument says which build this is.
type versionDocument struct {
	Version string `json:"version"` // of this document
	Release string `json:"release"`
	// Module is the version of the module, Revision the commit and Modified whether the tree had changes; as far as the
	// build knows them.
	Module   string `json:"module,omitempty"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	// Object is the SHA-256 of the eBPF object, in hexadecimal: the same on both sides of a restart means the same
	// code.
	Object string `json:"object"`
}

func currentVersion() versionDocument {
	sum := sha256.Sum256(bpf.Object())
	v := versionDocument{
		Version: report.Version, Release: releaseName(), Go: runtime.Version(), Object: hex.EncodeToString(sum[:]),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Module = info.Main.Version
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	return v
}

func releaseName() string { return command.Release(release) }

func newVersionCommand(e command.Env) *cobra.Command {
	var o command.Output
	c := &cobra.Command{
		Use:     "version",
		Short:   "Show which build this is",
		Example: "  evenkeel version\n  evenkeel version -o json",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := currentVersion()
			return show(c, o, e.Stdout, v, func(t *table) {
				t.pair("release", v.Release)
				if v.Revision != "" {
					t.pair("revision", v.Revision+map[bool]string{true: " (modified)"}[v.Modified])
				}
				t.pair("go", v.Go)
				t.pair("object", fmt.Sprintf("sha256:%s", v.Object))
			})
		},
	}
	o.Flag(c)
	return c
}
