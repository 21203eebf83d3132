// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/doctor"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
)

func newDoctorCommand(e command.Env) *cobra.Command {
	var d doctor.Options
	var o command.Output
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out whether this machine can carry the data plane",
		Long: `Find out whether this machine can carry the data plane, by trying each thing that it needs: the programs of this release
are loaded and attached to a cgroup and a network namespace of their own, which go again. What serves is not touched.

It exits 1 if something that is needed is missing, and says of everything what its lack costs.`,
		Example: "  evenkeel doctor\n  evenkeel doctor -o json | jq '.checks[] | select(.ok | not)'",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			r, err := doctor.Examine(c.Context(), d)
			if err != nil {
				return err
			}
			if err := show(c, o, e.Stdout, r, func(t *table) { printDoctor(t, r) }); err != nil {
				return err
			}
			if !r.OK {
				return command.Exit(1)
			}
			return nil
		},
	}
	command.PathVar(c.Flags(), &d.Dir, "pin-dir", enrolment.DefaultDir, "where the data plane is, or is to be, pinned")
	command.PathVar(c.Flags(), &d.Cgroup, "cgroup", "", "cgroup of the pods (default: the root of cgroup2)")
	o.Flag(c)
	return c
}

func printDoctor(t *table, r *doctor.Report) {
	t.head("CHECK", "OK", "FOUND")
	for _, c := range r.Checks {
		t.row(c.Name, verdict(c), c.Detail)
	}
	for _, c := range r.Checks {
		if !c.OK {
			t.line("  ! without %s: %s", c.Name, c.Without)
		}
	}
	if len(r.Others) > 0 {
		t.head("PROGRAM OF OTHERS", "HOOK", "CGROUP", "ID")
		for _, o := range r.Others {
			t.row(o.Name, o.Hook, o.Cgroup, id(o.Program))
		}
		said := make(map[string]bool)
		for _, o := range r.Others {
			if o.Balancer != "" && !said[o.Balancer] {
				said[o.Balancer] = true
				t.line("  ! %s chooses endpoints: where it is attached before this data plane, no pod can be enrolled", o.Balancer)
			}
		}
	}
	t.head(map[bool]string{
		true: "this machine can carry the data plane", false: "this machine cannot carry the data plane",
	}[r.OK])
}

func verdict(c doctor.Check) string {
	switch {
	case c.OK:
		return "yes"
	case c.Needed:
		return "NO"
	}
	return "no (not needed)"
}
