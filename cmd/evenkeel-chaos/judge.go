// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

func newJudgeCommand(e command.Env) *cobra.Command {
	var o command.Output
	var all bool
	c := &cobra.Command{
		Use:   "judge FILE…",
		Short: "Judge a recorded run again",
		Long: `Judge a recorded run again, from its recordings alone: those of its clients and of the suite that marked the
phases, in any order.

A flow is intact if every frame came once, in order, unchanged and within the budget; stalled if one was later than
that; broken if the connection ended or a frame was lost, repeated or changed. A probe is intact if every attempt
went as it must. The budget is three times the worst lateness of the phases without a fault, and at least 10 ms. A run whose
budget exceeds its limit (20 ms, 50 ms for upgrades) is void: the machine was too slow to tell.`,
		Example: `  evenkeel-chaos judge client.ndjson phases.ndjson
  evenkeel-chaos judge -o json *.ndjson | jq '.details[] | select(.verdict != "intact")'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return command.Usage(c, errors.New("it needs a recording"))
			}
			if err := o.Check(c); err != nil {
				return err
			}
			report, err := record.JudgeFiles(args...)
			if err != nil {
				return fmt.Errorf("judge: %w", err)
			}
			if err := printReport(e.Stdout, report, o, all); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			if report.Verdict != record.Passed {
				return command.Exit(1)
			}
			return nil
		},
	}
	o.Flag(c)
	c.Flags().BoolVarP(&all, "all", "a", false, "list intact flows, too (json always does)")
	return c
}

func printReport(w io.Writer, r *record.Report, o command.Output, all bool) error {
	if o == "json" {
		return command.JSON(w, r)
	}
	fmt.Fprintf(w, "%s: %d flows intact, %d stalled, %d broken; %d probes, %d attempts wrong\n", r.Verdict, r.Flows.Intact,
		r.Flows.Stalled, r.Flows.Broken, r.Probes, r.WrongVerdicts)
	fmt.Fprintf(w, "worst gap %.1f ms, budget %.1f ms (without a fault %.1f ms); not seen: up to %.1f ms\n", r.WorstGap,
		r.Budget, r.Baseline, r.Blind)
	for _, reason := range r.VoidReasons {
		fmt.Fprintf(w, "void: %s\n", reason)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := 0
	for _, d := range r.Details {
		if d.Verdict == record.Intact && !all {
			continue
		}
		if rows++; rows == 1 {
			fmt.Fprintf(t, "\nFLOW\tKIND\tTO\tVERDICT\tGAP MS\tSENT\tRECEIVED\tWHY\n")
		}
		kind := d.Kind
		if d.Must != "" {
			kind += ", must " + d.Must
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.1f\t%d\t%d\t%s\n", d.Name, kind, d.To, d.Verdict, d.Gap, d.Sent, d.Received, d.Why)
	}
	return t.Flush()
}
