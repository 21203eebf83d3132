// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// chaosRun runs evenkeel-chaos and returns its exit code and what it printed.
func chaosRun(ctx SpecContext, args ...string) (code int, stdout, stderr string) {
	GinkgoHelper()
	var out, err bytes.Buffer
	c := exec.CommandContext(ctx, filepath.Join(filepath.Dir(built.evenkeel), "evenkeel-chaos"), args...)
	c.Stdout, c.Stderr = &out, &err
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // it takes its labs down
	c.WaitDelay = 30 * time.Second
	ended := c.Run()
	var exit *exec.ExitError
	if !errors.As(ended, &exit) {
		Expect(ended).NotTo(HaveOccurred())
	}
	return c.ProcessState.ExitCode(), out.String(), err.String()
}

// Serial: what is judged here is late when other specs use the processors.
var _ = Describe("evenkeel-chaos run", Serial, func() {
	const limit = SpecTimeout(2 * time.Minute)
	// One spec: flows of every kind through a mesh to which nothing is done, and what must be refused.
	const label = "tier:smoke && fault: isEmpty && !negative && !build:control"

	type answer struct {
		Answer, Sentence string
		Seed             uint64
		Dataplane        string
		Passed, Failed   int
		Skipped          int
		Flows            struct{ Intact, Stalled, Broken int }
		WorstGap         *float64 `json:"worst_gap_ms"`
		Budget           float64  `json:"budget_ms"`
		Void, Leaks      *int
		WrongVerdicts    int `json:"wrong_verdicts"`
		Specs            []struct{ Group, Name, State, Failure string }
	}
	parse := func(text string) answer {
		GinkgoHelper()
		var a answer
		Expect(json.Unmarshal([]byte(text), &a)).To(Succeed(), text)
		return a
	}

	It("says that a release may be rolled out, in every form", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		page, junit := filepath.Join(dir, "report.html"), filepath.Join(dir, "junit.xml")
		code, out, progress := chaosRun(ctx, "run", "--label", label, "--seed", "42", "-o", "json", "--report", page, "--junit", junit)
		Expect(code).To(BeZero(), "%s%s", progress, out)
		a := parse(out)
		Expect(a.Answer).To(Equal("yes"))
		Expect(a.Sentence).To(HavePrefix("Yes, evenkeel "))
		Expect(a.Seed).To(BeEquivalentTo(42))
		Expect(a.Dataplane).To(Equal("evenkeel"))
		Expect(a.Passed).To(Equal(len(a.Specs)))
		Expect(a.Passed).To(BeNumerically(">=", 1))
		Expect(a.Flows.Intact).To(BeNumerically(">", 10))
		Expect(a.Flows.Broken + a.WrongVerdicts + a.Failed + a.Skipped).To(BeZero())
		Expect(a.Budget).To(BeNumerically(">=", 10))
		Expect(a.WorstGap).NotTo(BeNil())
		Expect(a.Void).NotTo(BeNil())
		Expect(a.Leaks).NotTo(BeNil())
		Expect(progress).To(ContainSubstring("1/1 ok"))

		text, err := os.ReadFile(page)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).To(ContainSubstring("may be rolled out"))
		Expect(string(text)).To(ContainSubstring(`<path class="calm"`), "flows over time")
		text, err = os.ReadFile(junit)
		Expect(err).NotTo(HaveOccurred())
		var suites struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
		}
		Expect(xml.Unmarshal(text, &suites)).To(Succeed())
		Expect(suites.Tests).To(BeNumerically(">=", 1))
		Expect(suites.Failures).To(BeZero())
	}, limit)

	// The control: a build that lets pass what must be refused is found out.
	It("says that a wrong build may not", Label("control"), func(ctx SpecContext) {
		code, out, progress := chaosRun(ctx, "run", "--label", label, "-o", "json", "--binaries", filepath.Dir(built.controls["miss_passes"]))
		Expect(code).To(Equal(1), "%s%s", progress, out)
		a := parse(out)
		Expect(a.Answer).To(Equal("no"))
		Expect(a.Sentence).To(And(HavePrefix("No, evenkeel "), ContainSubstring("may not be rolled out"),
			ContainSubstring("went as it must not")))
		Expect(a.WrongVerdicts).To(BeNumerically(">", 0))
		Expect(a.Specs).To(ContainElement(HaveField("State", "failed")))
		Expect(progress).To(ContainSubstring("FAILED"))
	}, limit)

	// Two builds whose programs differ, on a topology and manifests of somebody's own.
	step := func(ctx SpecContext, to string, args ...string) (int, answer, string) {
		GinkgoHelper()
		dir := GinkgoT().TempDir()
		topology, manifests := filepath.Join(dir, "lab.yaml"), filepath.Join(dir, "manifests")
		Expect(os.Mkdir(manifests, 0o755)).To(Succeed())
		Expect(os.WriteFile(topology, []byte(rolloutTopology), 0o644)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(manifests, "services.yaml"), []byte(rolloutServices), 0o644)).To(Succeed())
		code, out, progress := chaosRun(ctx, append([]string{"run", "--from", built.evenkeel, "--to", to, "--topology", topology,
			"--manifests", manifests, "--label", "tier:smoke", "-o", "json"}, args...)...)
		Expect(out).NotTo(BeEmpty(), progress)
		return code, parse(out), progress
	}

	It("says that one release may follow another on somebody's topology", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		page, junit := filepath.Join(dir, "report.html"), filepath.Join(dir, "junit.xml")
		code, a, progress := step(ctx, built.controls["ignore_weights"], "--report", page, "--junit", junit)
		Expect(code).To(BeZero(), progress)
		Expect(a.Sentence).To(HavePrefix("Yes, the step from "))
		Expect(a.Passed).To(Equal(4))
		Expect(a.Flows.Intact).To(BeNumerically(">=", 4*10))
		Expect(a.Flows.Broken + a.WrongVerdicts + a.Failed + a.Skipped).To(BeZero())
		text, err := os.ReadFile(page)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).To(And(ContainSubstring("kill agent/left"), ContainSubstring("behind 10.96.0.10:80")))
		Expect(junit).To(BeAnExistingFile())
	}, SpecTimeout(4*time.Minute))

	It("says that a release that lets pass what must be refused may not follow", Label("control"), func(ctx SpecContext) {
		code, a, progress := step(ctx, built.controls["miss_passes"])
		Expect(code).To(Equal(1), progress)
		Expect(a.Sentence).To(And(HavePrefix("No, the step from "), ContainSubstring("went as it must not")))
		Expect(a.WrongVerdicts).To(BeNumerically(">", 0))
		Expect(a.Passed).To(Equal(1), "what serves before it is sound")
	}, SpecTimeout(4*time.Minute))

	It("refuses a step that is none", func(ctx SpecContext) {
		for want, args := range map[string][]string{
			"nothing would be changed": {"--from", built.evenkeel, "--to", built.evenkeel, "--topology", "lab.yaml"},
			"are needed together":      {"--from", built.evenkeel},
			"cannot be executed":       {"--from", "/nowhere", "--to", built.evenkeel, "--topology", "lab.yaml"},
			"lab.yaml":                 {"--from", built.evenkeel, "--to", built.controls["miss_passes"], "--topology", "/nowhere/lab.yaml"},
		} {
			code, _, errs := chaosRun(ctx, append([]string{"run"}, args...)...)
			Expect(code).To(Equal(2), want)
			Expect(errs).To(ContainSubstring(want))
		}
	}, limit)

	It("lists the specs of one data plane", func(ctx SpecContext) {
		_, all, _ := chaosRun(ctx, "run", "--list")
		code, out, errs := chaosRun(ctx, "run", "--list", "--dataplane", "ambient", "--label", "tier:smoke || tier:pr")
		Expect(code).To(BeZero(), errs)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		Expect(lines).To(HaveEach(ContainSubstring("dataplane:ambient")))
		Expect(lines).To(HaveLen(strings.Count(all, "dataplane:ambient")))
		Expect(strings.Count(all, "dataplane:")).To(Equal(strings.Count(all, "\n")), "each spec names its data plane:\n%s", all)
		code, _, errs = chaosRun(ctx, "run", "--dataplane", "sidecar")
		Expect(code).To(Equal(2))
		Expect(errs).To(ContainSubstring("ambient"))
	}, limit)

	It("does not say yes where nothing ran", func(ctx SpecContext) {
		code, out, _ := chaosRun(ctx, "run", "--label", "no-such-label")
		Expect(code).To(Equal(1))
		Expect(out).To(ContainSubstring("is not known: no spec ran"))
	}, limit)
})

const rolloutTopology = `
apiVersion: netsim.evenkeel.io/v1
kind: Topology
metadata: {name: shop}
spec:
  nodes:
  - {name: left, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: right, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  wires: [{between: [left, right]}]
  agent: {enabled: true}
  pods:
  - {name: front, node: left, enrol: true}
  - {name: cart, node: right, enrol: true, labels: {app: cart}}
  - {name: web, node: right, count: 2, enrol: true, labels: {app: web}, serve: ["http :8080"],
     ports: [{name: http, containerPort: 8080}]}
`

// Of both families and protocols, one without an endpoint for one of the nodes, one without any.
const rolloutServices = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00:96::10"]
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}, {name: echo, port: 9001, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: default}
spec: {clusterIP: 10.96.0.20, internalTrafficPolicy: Local, selector: {app: cart}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: default}
spec: {clusterIP: 10.96.0.30, selector: {app: nobody}, ports: [{port: 80}]}
`

var _ = Describe("The demo", Serial, func() {
	It("loses nothing through evenkeel, shows what the peer loses, and leaves nothing", func(ctx SpecContext) {
		page := filepath.Join(GinkgoT().TempDir(), "demo.html")
		code, out, errs := chaosRun(ctx, "demo", "--pace", "500ms", "--report", page)
		Expect(code).To(BeZero(), "%s%s", out, errs)
		Expect(out).To(ContainSubstring("none failed, no connection noticed"))
		Expect(out).To(MatchRegexp(`Through the proxies 18 of \d+ connections broke`))
		Expect(out).To(MatchRegexp(`kill -9(.|\n)*evenkeel: 0 connections lost; ambient: 6 connections lost`))
		Expect(out).NotTo(ContainSubstring("\x1b"), "there is no terminal")
		text, err := os.ReadFile(page)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).To(And(ContainSubstring(`data-dataplane="evenkeel"`), ContainSubstring(`data-dataplane="ambient"`)))
		labs, err := exec.CommandContext(ctx, built.evenkeel, "sim", "ls", "-o", "json").Output()
		Expect(err).NotTo(HaveOccurred())
		Expect(string(labs)).NotTo(ContainSubstring(`"demo`))
	}, SpecTimeout(2*time.Minute))
})
