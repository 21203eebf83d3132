// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/formatter"
	"github.com/onsi/ginkgo/v2/reporters"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/chaos"
	"github.com/evenkeel/evenkeel/chaos/report"
	"github.com/evenkeel/evenkeel/chaos/schedule"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
)

// runOptions are the flags of run.
type runOptions struct {
	chaos.Config
	dataplane          string
	label, page, junit string
	schedule           string
	from, to           string
	topology           string
	manifests          []string
	seed               uint64
	output             command.Output
	list               bool
	timeout            time.Duration
}

func newRunCommand(e command.Env) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the suites: may this release be rolled out?",
		Long: `Run the suites, on labs out of network namespaces: connections are watched frame by frame while agents are killed,
stopped, starved and restarted, state is damaged and wires are cut. It ends with one sentence: whether the release may
be rolled out, and if not, why. Needs root.

Exit code 0: every expectation came true, that of the controls included, whose connections have to break. 1: one did
not, or the run could not tell. 2: the command line was wrong.

--label chooses specs by their labels, such as tier:smoke (a minute), tier:pr, tier:nightly, fault:kill; ! && || and
parentheses combine them. --list shows the specs and their labels.

With --from, --to and --topology the question is whether to go from one release to another, on your own topology (see
evenkeel sim up) with your own manifests: pods talk to all services while each node goes there and back, and agents are
killed on the way. The pods' own servers and commands are not started; servers that count take their places.`,
		Example: `  sudo evenkeel-chaos run --label tier:smoke
  sudo evenkeel-chaos run --binaries ./1.4 --report rollout.html
  sudo evenkeel-chaos run --from ./1.3/evenkeel --to ./1.4/evenkeel --topology lab.yaml --manifests ./manifests
  sudo evenkeel-chaos run --label 'tier:pr && !fault:term' --seed 42 -o json --junit junit.xml`,
		Args: command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			return runSuites(c.Context(), e, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.dataplane, "dataplane", "", "run the specs whose labs run this: none, evenkeel, ambient or ztunnel; default: all")
	f.StringVar(&o.Ztunnel, "ztunnel", e.Getenv("EVENKEEL_ZTUNNEL"), "the ztunnel that is compared with; default: $EVENKEEL_ZTUNNEL")
	f.StringVar(&o.label, "label", "", "run the specs with these labels; default: all")
	f.Uint64Var(&o.seed, "seed", 0, "decides everything that is drawn at random; default: the time")
	f.StringVar(&o.schedule, "schedule", "", "have the random walk do this: faults as fault inject takes them, ' + ' between those "+
		"that are there at once, ';' between rounds")
	command.PathVar(f, &o.Binaries, "binaries", "", "directory of the evenkeel to test; default: the one of this program")
	command.PathVar(f, &o.from, "from", "", "the evenkeel that serves: the release to go from")
	command.PathVar(f, &o.to, "to", "", "the evenkeel of the release to go to")
	command.PathVar(f, &o.topology, "topology", "", "file of the lab on which to go from one to the other")
	f.StringArrayVar(&o.manifests, "manifests", nil, "file or directory of manifests that the agents read beside the topology's")
	command.PathVar(f, &o.page, "report", "", "write the report to this HTML file, which needs nothing else")
	command.PathVar(f, &o.junit, "junit", "", "write a JUnit report to this file")
	f.DurationVar(&o.timeout, "timeout", time.Hour, "give up after this long")
	f.BoolVar(&o.list, "list", false, "list the specs that would run, and run none")
	o.output.Flag(c)
	return c
}

// styles are how Ginkgo marks what is coloured.
var styles = regexp.MustCompile(`{{[^}]*}}`)

// check refuses a command line that cannot be run, before anything is.
func (o *runOptions) check(c *cobra.Command) error {
	if err := o.output.Check(c); err != nil {
		return err
	}
	if _, err := types.ParseLabelFilter(o.label); err != nil {
		var syntax types.GinkgoError
		if errors.As(err, &syntax) {
			err = errors.New(strings.Join(strings.Fields(styles.ReplaceAllString(syntax.Message, "")), " "))
		}
		return command.Usage(c, fmt.Errorf("--label %q: %w", o.label, err))
	}
	if o.dataplane != "" && !slices.Contains(netsim.Dataplanes(), netsim.Dataplane(o.dataplane)) {
		return command.Usage(c, fmt.Errorf("--dataplane %q: %v are known", o.dataplane, netsim.Dataplanes()))
	}
	if o.schedule != "" {
		var err error
		if o.Schedule, err = schedule.Parse(o.schedule); err != nil {
			return command.Usage(c, fmt.Errorf("--%w", err))
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	o.Chaos, o.Binaries = self, cmp.Or(o.Binaries, filepath.Dir(self))
	if o.Ztunnel != "" {
		if err := unix.Access(o.Ztunnel, unix.X_OK); err != nil {
			return command.Usage(c, fmt.Errorf("--ztunnel %s cannot be executed: %w", o.Ztunnel, err))
		}
	}
	if err := o.checkRollout(); err != nil {
		return command.Usage(c, err)
	}
	for flag, path := range map[string]string{"--report": o.page, "--junit": o.junit} {
		if err := checkDirectory(flag, path); err != nil {
			return command.Usage(c, err)
		}
	}
	if err := unix.Access(filepath.Join(o.Binaries, "evenkeel"), unix.X_OK); err != nil && o.from == "" && !o.list {
		return command.Usage(c, fmt.Errorf("--binaries %s: there is no evenkeel to test: %w", o.Binaries, err))
	}
	if err := chaos.Configure(o.Config); err != nil {
		return command.Usage(c, err)
	}
	return nil
}

// checkRollout reads what --from, --to, --topology and --manifests name.
func (o *runOptions) checkRollout() error {
	if o.from == "" && o.to == "" && o.topology == "" && o.manifests == nil {
		return nil
	}
	if o.from == "" || o.to == "" || o.topology == "" {
		return errors.New("--from, --to and --topology are needed together, --manifests goes with them")
	}
	if o.schedule != "" || o.dataplane != "" && o.dataplane != string(netsim.Evenkeel) {
		return errors.New("--schedule and --dataplane are for the suites, not for going from one release to another")
	}
	rollout := &chaos.Rollout{From: o.from, To: o.to}
	var sums [2][sha256.Size]byte
	for i, f := range []struct {
		flag string
		path *string
	}{{"--from", &rollout.From}, {"--to", &rollout.To}} {
		path, err := filepath.EvalSymlinks(*f.path)
		if err == nil {
			err = unix.Access(path, unix.X_OK)
		}
		if err != nil {
			return fmt.Errorf("%s %s cannot be executed: %w", f.flag, *f.path, err)
		}
		*f.path = path
		if sums[i], err = sum(path); err != nil {
			return fmt.Errorf("%s: %w", f.flag, err)
		}
	}
	if sums[0] == sums[1] {
		return fmt.Errorf("--from %s and --to %s are the same program: nothing would be changed", o.from, o.to)
	}
	t, err := netsim.ParseFile(o.topology)
	if err != nil {
		return fmt.Errorf("--topology: %w", err)
	}
	if !t.Agent.Enabled || t.Dataplane != netsim.Evenkeel {
		return fmt.Errorf("--topology %s: it has no agents: spec.agent.enabled has to be true, and spec.dataplane %s", o.topology,
			netsim.Evenkeel)
	}
	for _, path := range o.manifests {
		if err := t.AddManifests(path); err != nil {
			return fmt.Errorf("--manifests: %w", err)
		}
	}
	rollout.Topology, o.Rollout = t, rollout
	return nil
}

// sum is the SHA-256 of a file.
func sum(path string) (s [sha256.Size]byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return s, fmt.Errorf("read %s: %w", path, err)
	}
	return [sha256.Size]byte(hash.Sum(nil)), nil
}

// checkDirectory refuses a file in a directory that there is not.
func checkDirectory(flag, path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return fmt.Errorf("%s %s: there is no directory %s", flag, path, filepath.Dir(path))
	}
	return nil
}

func runSuites(ctx context.Context, e command.Env, o runOptions) error {
	if os.Geteuid() != 0 && !o.list {
		return errors.New("run makes network namespaces and loads BPF programs: run it as root, sudo evenkeel-chaos run")
	}
	show := newProgress(e, o.output)
	suite, reporting := ginkgo.GinkgoConfiguration()
	suite.LabelFilter, suite.Timeout, suite.DryRun = o.filter(), o.timeout, o.list
	suite.RandomSeed = int64(cmp.Or(o.seed, uint64(time.Now().Unix())))
	reporting.NoColor = true
	var found types.Report
	ginkgo.ReportBeforeSuite(func(r types.Report) { show.begin(r) })
	ginkgo.ReportBeforeEach(func(r types.SpecReport) { show.start(r) })
	ginkgo.ReportAfterEach(func(r types.SpecReport) { show.end(r) })
	ginkgo.ReportAfterSuite("keep", func(r types.Report) { found = r })
	// Ginkgo prints for those who develop specs: the progress and the report here are for those who run them.
	formatter.ColorableStdOut = io.Discard
	gomega.RegisterFailHandler(ginkgo.Fail)
	ginkgo.RunSpecs(&outcome{}, "evenkeel-chaos", suite, reporting)
	show.close()
	if o.list {
		return listSpecs(e, o.output, found)
	}
	if o.junit != "" {
		if err := reporters.GenerateJUnitReport(found, o.junit); err != nil {
			return fmt.Errorf("write --junit %s: %w", o.junit, err)
		}
	}
	r, err := report.Of(found)
	if err != nil {
		return err
	}
	r.Title = "evenkeel-chaos"
	r.Seed, r.Dataplane, r.Repeat = uint64(suite.RandomSeed), cmp.Or(o.dataplane, string(netsim.Evenkeel)), o.again(suite.RandomSeed)
	what := releaseOf(ctx, filepath.Join(o.Binaries, "evenkeel"))
	r.About = append([]report.Fact{{Name: "release", Value: what}}, machine()...)
	if o.Rollout != nil {
		from, to := releaseOf(ctx, o.Rollout.From), releaseOf(ctx, o.Rollout.To)
		r.About = append([]report.Fact{{Name: "from", Value: from + ", " + o.Rollout.From},
			{Name: "to", Value: to + ", " + o.Rollout.To}, {Name: "topology", Value: o.topology}}, machine()...)
		if from == to { // builds that give themselves no name of their own
			from, to = o.Rollout.From, o.Rollout.To
		}
		what = fmt.Sprintf("the step from %s to %s on %s", from, to, o.topology)
	}
	r.Conclude(what, both(o.dataplaneLabel(), o.label))
	if o.page != "" {
		if err := writePage(r, o.page); err != nil {
			return err
		}
	}
	if o.output == "json" {
		if err := command.JSON(e.Stdout, r.WithoutPictures()); err != nil {
			return err
		}
	} else {
		printConclusion(e.Stdout, r, o)
	}
	if r.Answer != report.Yes {
		return command.Exit(1)
	}
	return nil
}

// filter is --dataplane and --label, without the specs that need builds which do wrong on purpose where there are none:
// whoever tests a release has no use for them.
func (o *runOptions) filter() string {
	filter := both(o.dataplaneLabel(), o.label)
	if o.Rollout != nil {
		return both("rollout", filter)
	}
	if _, err := os.Stat(filepath.Join(o.Binaries, "control")); err != nil {
		filter = both(filter, "!build:control")
	}
	return filter
}

// dataplaneLabel is the label that --dataplane stands for.
func (o *runOptions) dataplaneLabel() string {
	if o.dataplane == "" {
		return ""
	}
	return "dataplane:" + o.dataplane
}

// both is the filter that lets pass what two others do; an empty one lets everything pass.
func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return "(" + a + ") && (" + b + ")"
}

// outcome takes Ginkgo's word that the suite failed, which its report says better.
type outcome struct{}

func (*outcome) Fail() {}

// again is the command line that does the same.
func (o *runOptions) again(seed int64) string {
	line := []string{"evenkeel-chaos", "run"}
	flags := []struct{ flag, value string }{
		{"--dataplane", o.dataplane}, {"--label", o.label}, {"--seed", fmt.Sprint(seed)},
		{"--schedule", o.schedule}, {"--from", o.from}, {"--to", o.to}, {"--topology", o.topology},
	}
	for _, path := range o.manifests {
		flags = append(flags, struct{ flag, value string }{"--manifests", path})
	}
	for _, f := range flags {
		if f.value == "" {
			continue
		}
		if strings.ContainsAny(f.value, " !&|()'\"$*") {
			f.value = "'" + strings.ReplaceAll(f.value, "'", `'\''`) + "'"
		}
		line = append(line, f.flag, f.value)
	}
	return strings.Join(line, " ")
}

// releaseOf is what a binary says that it is; its path if it says nothing.
func releaseOf(ctx context.Context, path string) string {
	said, err := exec.CommandContext(ctx, path, "--version").Output()
	name := strings.TrimSpace(strings.Replace(string(said), "version ", "", 1))
	if err != nil || name == "" {
		return path
	}
	return name
}

// machine is what the run was made on.
func machine() []report.Fact {
	facts := []report.Fact{{Name: "processors", Value: fmt.Sprint(runtime.NumCPU())}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		facts = append(facts, report.Fact{Name: "kernel", Value: unix.ByteSliceToString(u.Release[:])})
	}
	return facts
}

func writePage(r *report.Report, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write --report: %w", err)
	}
	return errors.Join(r.HTML(file), file.Close())
}

func printConclusion(w io.Writer, r *report.Report, o runOptions) {
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped in %.0f s; flows: %d intact, %d stalled, %d broken; worst gap %.1f ms of "+
		"%.1f ms; %d wrong verdicts, %d leaks\n", r.Passed, r.Failed, r.Skipped, r.Seconds, r.Flows.Intact, r.Flows.Stalled,
		r.Flows.Broken, r.WorstGap, r.Budget, r.WrongVerdicts, r.Leaks)
	fmt.Fprintf(w, "again: %s\n", r.Repeat)
	for _, f := range []string{o.page, o.junit} {
		if f != "" {
			fmt.Fprintf(w, "written: %s\n", f)
		}
	}
	fmt.Fprintf(w, "\n%s\n", r.Sentence)
}
