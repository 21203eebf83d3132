// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
)

// benchFlags are those of the benchmark.
type benchFlags struct {
	bench.Options
	check, list bool
	dir         string
}

func newBenchCommand(e env) *cobra.Command {
	var f benchFlags
	var o output
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what the mesh costs, against no mesh and against NAT",
		Long: `Measure what the mesh costs on this machine: against the same pods without a mesh, and against nftables NAT as
kube-proxy writes it. Pods are network namespaces that this command makes and removes; it needs root.

Variants run in turn in blocks of a quarter of a second; what is reported is the median of the ratios of blocks that ran
beside each other, with a 95 % interval. Whether a figure is reached is decided by the interval: yes, no or undecided.
No mesh is measured against itself all the while: where that is off by more than 2 %, what was measured beside it is
undecided. Rounds that other work on the machine disturbed are thrown away, so leave it alone meanwhile.

A run takes about 20 minutes, --quick 4. The table goes to standard output; the same as JSON and as a page with plots
goes to the directory --dir.`,
		Example: `  sudo evenkeel bench --quick
  sudo evenkeel bench --only 'connect-rate-*,nat-rate-*'
  sudo evenkeel bench --only connect-rate-c8-two-cores-bbr -o json --check
  evenkeel bench --list`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			if f.list {
				return o.print(c, e.stdout, benchList(), printBenchList)
			}
			if !slices.Contains([]bench.Control{bench.NoControl, bench.SlowAgain, bench.SlowMesh}, f.Control) {
				return usage(c, fmt.Errorf("--control %q: slow-again and slow-mesh are known", f.Control))
			}
			if !c.Flags().Changed("seed") {
				f.Seed = rand.Uint64N(1 << 32)
			}
			if o == "table" && !c.Flags().Changed("dir") {
				f.dir = "evenkeel-bench"
			}
			return f.run(c, e, o)
		},
	}
	p := c.Flags()
	p.StringSliceVar(&f.Only, "only", nil, "measure these rows and no others: ids, in which * and ? stand for others")
	p.BoolVar(&f.All, "all", false, "measure variants, too: two cores, bbr, Fortio, the source check")
	p.BoolVar(&f.Quick, "quick", false, "measure less of each: every row within 4 minutes, wider intervals")
	p.BoolVar(&f.check, "check", false, "exit with 1 if a figure is not reached, with 2 if it is undecided")
	p.BoolVar(&f.list, "list", false, "list rows and variants, and measure nothing")
	p.Uint64Var(&f.Seed, "seed", 0, "what is random is drawn from it (default: a new one)")
	p.StringVar(&f.dir, "dir", "", `where to write results.json and results.html (default with a table: "evenkeel-bench")`)
	p.StringVar(&f.Load, "load", "", "the evenkeel-load that makes traffic (default: the one beside this program)")
	p.StringVar((*string)(&f.Control), "control", "", "make a measurement wrong on purpose: slow-again or slow-mesh")
	cobra.CheckErr(p.MarkHidden("control"))
	c.AddCommand(newBenchNodeCommand(e))
	o.flag(c)
	return c
}

func (f *benchFlags) run(c *cobra.Command, e env, o output) error {
	if err := f.findBinaries(); err != nil {
		return err
	}
	f.Release = currentVersion().Release
	p := newProgress(e.stderr)
	f.Progress = p.show
	if o == "table" {
		rows := newBenchTable(e.stdout)
		f.Done = func(row bench.Row, r bench.Result) {
			p.clear()
			rows.add(row, r)
		}
	}
	d, err := bench.Run(c.Context(), f.Options)
	p.clear()
	var selection *bench.SelectionError
	if errors.As(err, &selection) {
		return usage(c, err)
	}
	if err != nil {
		return err
	}
	if f.dir != "" {
		if err := writeBench(f.dir, d); err != nil {
			return err
		}
	}
	if err := o.print(c, e.stdout, d, func(t *table) { printBench(t, d, f.dir) }); err != nil {
		return err
	}
	if code := d.Exit(); f.check && code != 0 {
		return exitError(code)
	}
	return nil
}

// findBinaries finds the two programs that are measured.
func (f *benchFlags) findBinaries() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	f.Binary = self
	if f.Load == "" {
		f.Load = filepath.Join(filepath.Dir(self), "evenkeel-load")
	}
	if _, err := os.Stat(f.Load); err != nil {
		return fmt.Errorf("find what makes the traffic: %w: 'make build' builds it beside evenkeel; --load says where it is", err)
	}
	return nil
}

// writeBench writes the document as JSON.
func writeBench(dir string, d *bench.Document) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// benchTable prints rows one by one, as they are known.
type benchTable struct{ out io.Writer }

const benchLine = "%-42s %10s  %-21s %-9s %-9s %s\n"

func newBenchTable(out io.Writer) *benchTable {
	fmt.Fprintf(out, benchLine, "ROW", "VALUE", "INTERVAL", "UNIT", "TO REACH", "")
	return &benchTable{out}
}

func (t *benchTable) add(_ bench.Row, r bench.Result) {
	value, interval := "-", "-"
	if r.Value != nil {
		value = figure(*r.Value, r.Unit)
		interval = fmt.Sprintf("[%s, %s]", figure(*r.Low, r.Unit), figure(*r.High, r.Unit))
	}
	fmt.Fprintf(t.out, benchLine, r.ID, value, interval, r.Unit, r.ToReach, r.OK)
}

// figure shows as many digits as mean something.
func figure(v float64, unit string) string {
	digits := 3
	switch abs := math.Abs(v); {
	case unit == "ratio":
	case abs >= 100:
		digits = 0
	case abs >= 10:
		digits = 1
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// printBench prints what comes after the rows.
func printBench(t *table, d *bench.Document, dir string) {
	answers := map[sample.Answer]int{}
	for _, r := range d.Rows {
		answers[r.OK]++
	}
	t.line("%d reached, %d not, %d undecided; %.0f s, seed %d, load %.2f at the beginning", answers[sample.Yes],
		answers[sample.No], answers[sample.Undecided], d.Seconds, d.Seed, d.Machine.Load)
	for _, p := range d.Problems {
		t.line("%s: %s", p.Row, p.Reason)
	}
	if dir != "" {
		t.line("%s", filepath.Join(dir, "results.json"))
	}
}

// benchRow is a row as --list shows it.
type benchRow struct {
	ID      string `json:"id"`
	Unit    string `json:"unit"`
	ToReach string `json:"to_reach"`
	What    string `json:"what"`
	// Variant is the row that this one is a variant of.
	Variant string `json:"variant,omitempty"`
}

type benchListDocument struct {
	Version string     `json:"version"`
	Rows    []benchRow `json:"rows"`
}

func benchList() benchListDocument {
	d := benchListDocument{Version: bench.Version}
	for _, r := range bench.Rows() {
		d.Rows = append(d.Rows, benchRow{r.ID, r.Unit, r.Target.String(), r.What, r.Variant})
	}
	return d
}

func printBenchList(t *table) {
	t.head("ROW", "TO REACH", "UNIT", "WHAT")
	for _, r := range benchList().Rows {
		t.row(r.ID, r.ToReach, r.Unit, r.What)
	}
}
