// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/page"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// benchFlags are those of the benchmark.
type benchFlags struct {
	bench.Options
	check, list bool
	dir, from   string
}

func newBenchCommand(e command.Env) *cobra.Command {
	c := newSuiteCommand(e, bench.Cost)
	c.Short = "Measure what the mesh costs, against no mesh and against NAT"
	c.Long = `Measure what the mesh costs on this machine: against the same pods without a mesh, and against nftables NAT as
kube-proxy writes it. Pods are network namespaces that this command makes and removes; it needs root.

Variants take turns of a few milliseconds, a quarter of a second of each in a round; what is reported is the median over
rounds of the ratios of turns that followed each other, with a 95 % interval. Whether a figure is reached is decided by
the interval: yes, no or undecided.
No mesh is measured against itself all the while: where that is off by more than 2 %, what was measured beside it is
undecided. Rounds that other work on the machine disturbed are thrown away, so leave it alone meanwhile.

With --quick it takes five minutes on two cores, else several times that. The table goes to standard output; the same
as JSON and as a page with plots goes to the directory --dir.`
	c.Example = `  sudo evenkeel bench --quick
  sudo evenkeel bench --only 'connect-rate-*,nat-rate-*'
  sudo evenkeel bench --only connect-rate-c8-two-cores-bbr -o json --check
  evenkeel bench --list`
	c.AddCommand(newBenchUpgradeCommand(e), newBenchNodeCommand(e))
	return c
}

func newBenchUpgradeCommand(e command.Env) *cobra.Command {
	c := newSuiteCommand(e, bench.Upgrade)
	c.Short = "Measure what it costs to replace the data plane while it carries traffic"
	c.Long = `Measure what it costs to replace the data plane while it carries traffic: how long a change takes, a rollback, and a
new agent; whether an event meets two generations; and whether a map whose layout changes loses an update, which is
counted to the last one while two CPUs make a million a second. Beside it, in the same run and on the same map and
traffic, the schemes of other systems are imitated: their rows say what those lose.

Generations are those of the data plane itself, in a pod that this command makes and removes; maps are moved on a
synthetic one, which keeps books. It needs root, and with --quick some two minutes on two cores.`
	c.Example = `  sudo evenkeel bench upgrade --quick
  sudo evenkeel bench upgrade --only 'migrate-*,imitation-*' -o json --check
  evenkeel bench upgrade --list`
	return c
}

// newSuiteCommand is what the two have in common.
func newSuiteCommand(e command.Env, suite bench.Suite) *cobra.Command {
	f := benchFlags{Options: bench.Options{Suite: suite}}
	var o command.Output
	use := "bench"
	if suite != bench.Cost {
		use = string(suite)
	}
	c := &cobra.Command{
		Use:  use,
		Args: command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			if f.list {
				return show(c, o, e.Stdout, benchList(suite), func(t *table) { printBenchList(t, suite) })
			}
			if !slices.Contains([]bench.Control{bench.NoControl, bench.SlowAgain, bench.SlowMesh}, f.Control) {
				return command.Usage(c, fmt.Errorf("--control %q: slow-again and slow-mesh are known", f.Control))
			}
			if !c.Flags().Changed("seed") {
				f.Seed = rand.Uint64N(1 << 32)
			}
			if !c.Flags().Changed("patience") && f.Quick {
				f.Patience = 10 * time.Second
			}
			if o == "table" && f.from == "" && !c.Flags().Changed("dir") {
				f.dir = "evenkeel-bench"
			}
			return f.run(c, e, o)
		},
	}
	p := c.Flags()
	p.StringSliceVar(&f.Only, "only", nil, "measure these rows and no others: ids, in which * and ? stand for others")
	if suite == bench.Cost {
		p.BoolVar(&f.All, "all", false, "measure variants, too: two cores, bbr, Fortio, the source check, proxies in user space"+
			" (ztunnel if EVENKEEL_ZTUNNEL names one)")
		command.PathVar(p, &f.Load, "load", "", "the evenkeel-load that makes traffic (default: the one beside this program)")
		p.StringVar((*string)(&f.Control), "control", "", "make a measurement wrong on purpose: slow-again or slow-mesh")
		p.IntVar(&f.Services, "services", 0, "services that mesh and NAT know, for tests of the benchmark")
	}
	p.BoolVar(&f.Quick, "quick", false, "measure less of each: every row within five minutes, wider intervals")
	p.BoolVar(&f.check, "check", false, "exit with 1 if a figure is not reached, with 2 if it is undecided")
	p.BoolVar(&f.list, "list", false, "list rows and variants, and measure nothing")
	p.Uint64Var(&f.Seed, "seed", 0, "what is random is drawn from it (default: a new one)")
	command.PathVar(p, &f.dir, "dir", "", `where to write results.json and results.html (default with a table: "evenkeel-bench")`)
	p.DurationVar(&f.Patience, "patience", 10*time.Minute,
		"how long to wait, in all, for others to leave the machine alone (10s with --quick)")
	command.PathVar(p, &f.from, "from", "", "show the results.json of an earlier run, and measure nothing")
	p.IntVar(&f.Rounds, "rounds", 0, "rounds of everything, for tests of the benchmark")
	for _, hidden := range []string{"control", "rounds", "services"} {
		if p.Lookup(hidden) != nil {
			cobra.CheckErr(p.MarkHidden(hidden))
		}
	}
	mustComplete(c, "only", completeRows(suite))
	o.Flag(c)
	return c
}

func (f *benchFlags) run(c *cobra.Command, e command.Env, o command.Output) error {
	d, err := f.results(c, e, o)
	if err != nil {
		return err
	}
	if f.dir != "" {
		if err := writeBench(f.dir, d); err != nil {
			return err
		}
	}
	if err := show(c, o, e.Stdout, d, func(t *table) { printBench(t, d, f.dir) }); err != nil {
		return err
	}
	if code := d.Exit(); f.check && code != 0 {
		return command.Exit(code)
	}
	return nil
}

// results measures, or reads what an earlier run has measured. With a table rows are printed as they are known.
func (f *benchFlags) results(c *cobra.Command, e command.Env, o command.Output) (*bench.Document, error) {
	done := func(bench.Result) {}
	if o == "table" {
		done = newBenchTable(e.Stdout).add
	}
	if f.from != "" {
		d, err := readBench(f.from)
		if err != nil {
			return nil, err
		}
		for _, r := range d.Rows {
			done(r)
		}
		return d, nil
	}
	if err := f.findBinaries(); err != nil {
		return nil, err
	}
	f.Release = currentVersion().Release
	p := newProgress(e.Stderr)
	f.Progress = p.show
	f.Done = func(r bench.Result) {
		p.clear()
		done(r)
	}
	d, err := bench.Run(c.Context(), f.Options)
	p.clear()
	var selection *bench.SelectionError
	if errors.As(err, &selection) {
		return nil, command.Usage(c, err)
	}
	return d, err
}

func readBench(path string) (*bench.Document, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	var d bench.Document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("read results of %s: %w", path, err)
	}
	if d.Version != bench.Version {
		return nil, fmt.Errorf("read results of %s: version %q, only %s is known", path, d.Version, bench.Version)
	}
	return &d, nil
}

// completeRows offers ids, the last of several separated by commas.
func completeRows(suite bench.Suite) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
		before := begin[:strings.LastIndexByte(begin, ',')+1]
		var all []string
		for _, r := range suite.Rows() {
			all = append(all, before+r.ID+"\t"+r.What)
		}
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// findBinaries finds the two programs that are measured.
func (f *benchFlags) findBinaries() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	f.Binary = self
	if f.Suite != bench.Cost {
		return nil
	}
	if f.Load == "" {
		f.Load = filepath.Join(filepath.Dir(self), "evenkeel-load")
	}
	if _, err := os.Stat(f.Load); err != nil {
		return fmt.Errorf("find what makes the traffic: %w: 'make build' builds it beside evenkeel; --load says where it is", err)
	}
	return nil
}

// writeBench writes the document as JSON and as a page.
func writeBench(dir string, d *bench.Document) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	var html bytes.Buffer
	if err := page.Write(&html, d); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"results.json": append(text, '\n'), "results.html": html.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

// benchTable prints rows one by one, as they are known.
type benchTable struct {
	out    io.Writer
	headed bool
}

const benchLine = "%-42s %10s  %-21s %-9s %-9s %s\n"

func newBenchTable(out io.Writer) *benchTable {
	return &benchTable{out: out}
}

func (t *benchTable) add(r bench.Result) {
	if !t.headed { // not over the reason why nothing could be measured
		fmt.Fprintf(t.out, benchLine, "ROW", "VALUE", "INTERVAL", "UNIT", "TO REACH", "")
		t.headed = true
	}
	value, interval := "-", "-"
	if r.Value != nil {
		value = bench.Figure(*r.Value, r.Unit)
		interval = fmt.Sprintf("[%s, %s]", bench.Figure(*r.Low, r.Unit), bench.Figure(*r.High, r.Unit))
	}
	fmt.Fprintf(t.out, benchLine, r.ID, value, interval, r.Unit, r.ToReach, r.OK)
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
		t.line("%s, %s", filepath.Join(dir, "results.json"), filepath.Join(dir, "results.html"))
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

func benchList(suite bench.Suite) benchListDocument {
	d := benchListDocument{Version: bench.Version}
	for _, r := range suite.Rows() {
		d.Rows = append(d.Rows, benchRow{r.ID, r.Unit, r.Target.String(), r.What, r.Variant})
	}
	return d
}

func printBenchList(t *table, suite bench.Suite) {
	t.head("ROW", "TO REACH", "UNIT", "WHAT")
	for _, r := range benchList(suite).Rows {
		t.row(r.ID, r.ToReach, r.Unit, r.What)
	}
}
