// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/netsim"
)

// sim runs `evenkeel sim` to its end.
func sim(ctx SpecContext, args ...string) result {
	GinkgoHelper()
	return runIn(ctx, host{}, nil, built.evenkeel, append([]string{"sim"}, args...)...)
}

// labTold is a part of what `sim inspect -o json` prints.
type labTold struct {
	Manifests string
	Nodes     []struct {
		PinDir string
		Agent  struct{ Admin string }
	}
	Pods []podTold
}

type podTold struct {
	Name      string
	Netns     string
	Enrolled  bool
	Addresses []string
	Processes []struct{ PID int }
}

func inspected(ctx SpecContext, lab string) (told labTold) {
	GinkgoHelper()
	Expect(json.Unmarshal([]byte(sim(ctx, "inspect", lab, "-o", "json").stdout), &told)).To(Succeed())
	return told
}

func (l labTold) pod(name string) podTold {
	GinkgoHelper()
	for _, p := range l.Pods {
		if p.Name == name {
			return p
		}
	}
	Fail("there is no pod " + name)
	return podTold{}
}

// simFile writes a topology file and returns its path and the name of its lab, which is cleaned up.
func simFile(spec string) (path, name string) {
	GinkgoHelper()
	name = nextName()
	path = filepath.Join(GinkgoT().TempDir(), name+".yaml")
	Expect(os.WriteFile(path, []byte(topology(name, spec)), 0o644)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		Expect(sim(ctx, "down", "--name", name).code).To(BeZero(), "down is idempotent")
		Eventually(ctx, func() []string { return remains(name) }).Should(BeEmpty(), "nothing is left of "+name)
	})
	return path, name
}

const simTopology = twoNodes + `
  - {name: client, node: left, enrol: true}
  - {name: web, node: right, count: 2, enrol: true, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`

var _ = Describe("evenkeel sim", Ordered, func() {
	var path, name string
	BeforeAll(func(ctx SpecContext) {
		path, name = simFile(simTopology)
		text, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		text = append(text, "---\n"+documents(webService("web", "10.96.0.10", "fd00:96::10"))...)
		Expect(os.WriteFile(path, text, 0o644)).To(Succeed())
		up := sim(ctx, "up", path)
		Expect(up.code).To(BeZero(), "%+v", up)
	})

	It("makes a cluster whose services answer", func(ctx SpecContext) {
		got := sim(ctx, "exec", "--name", name, "client", "--", built.client, "tcp", "-say", "ping", "10.96.0.10:7")
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(got.stdout).To(ContainSubstring(`"answer":"ping"`))
	})

	It("asks servers without a client of this machine's", func(ctx SpecContext) {
		got := sim(ctx, "call", "--name", name, "client", "tcp://10.96.0.10:7", "hello")
		Expect(got).To(Equal(result{stdout: "hello\n"}))
		got = sim(ctx, "call", "--name", name, "client", "tcp://10.96.0.10:8", "hello")
		Expect(got.code).To(Equal(1), "%+v", got)
		Expect(got.stderr).To(ContainSubstring("refused"))
		Expect(sim(ctx, "call", "--name", name, "client", "10.96.0.10").code).To(Equal(2))
	})

	It("passes standard streams and exit codes through exec", func(ctx SpecContext) {
		got := runIn(ctx, host{}, strings.NewReader("hello"), built.evenkeel, "sim", "exec", "--name", name, "client", "--",
			"sh", "-c", "cat; echo oops >&2; exit 7")
		Expect(got).To(Equal(result{stdout: "hello", stderr: "oops\n", code: 7}))
		got = sim(ctx, "exec", "--name", name, "node/left", "--", "cat", "/proc/self/cgroup")
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(got.stdout).NotTo(ContainSubstring("/nodes/left/"), "a node's shell is in no pod")
	})

	It("is completed by shells", func(ctx SpecContext) {
		for _, command := range []string{"exec", "call", "logs"} {
			got := runIn(ctx, host{}, nil, built.evenkeel, "__complete", "sim", command, "--name", name, "")
			Expect(strings.Fields(got.stdout)).To(ContainElements("default/client", "client", "node/left"), "%s: %+v", command, got)
		}
	})

	It("skips kinds that agents do not read, and names them", func(ctx SpecContext) {
		text, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		more := filepath.Join(GinkgoT().TempDir(), "more.yaml")
		text = append(text, "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"...)
		Expect(os.WriteFile(more, text, 0o644)).To(Succeed())
		got := sim(ctx, "apply", more)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(got.stdout).To(MatchRegexp(`more.yaml:\d+: Deployment web is skipped`))
		Expect(sim(ctx, "apply", path).code).To(BeZero())
	})

	It("takes pods that go out of every service before they end", func(ctx SpecContext) {
		text, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		more := filepath.Join(GinkgoT().TempDir(), "more.yaml")
		Expect(os.WriteFile(more, bytes.Replace(text, []byte("count: 2"), []byte("count: 3"), 1), 0o644)).To(Succeed())
		for range 3 {
			Expect(sim(ctx, "apply", more).stdout).To(ContainSubstring("pods +1"))
			told := inspected(ctx, name)
			goes := told.pod("web-2")
			agent := told.Nodes[0]
			endpoints := func() string {
				return runIn(ctx, host{}, nil, built.evenkeel, "dump", "endpoints", "--pin-dir", agent.PinDir, "--admin",
					agent.Agent.Admin).stdout
			}
			Expect(endpoints()).To(ContainSubstring(goes.Addresses[0] + ":"))
			applied := make(chan string, 1)
			go func() {
				defer GinkgoRecover()
				applied <- sim(ctx, "apply", path).stdout
			}()
			Eventually(ctx, func() string { // nothing, of one that has ended and waits for its parent, too
				line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", goes.Processes[0].PID))
				_ = err // it is gone
				return string(line)
			}).WithPolling(time.Millisecond).Should(BeEmpty())
			Expect(os.ReadFile(filepath.Join(told.Manifests, "pods.yaml"))).NotTo(ContainSubstring("web-2"))
			Expect(endpoints()).NotTo(ContainSubstring(goes.Addresses[0] + ":"))
			Expect(<-applied).To(ContainSubstring("pods -1, files of documents changed: 1"))
		}
	})

	It("shows what was withdrawn and enrolled by hand", func(ctx SpecContext) {
		told := inspected(ctx, name)
		dir, client := told.Nodes[0].PinDir, told.pod("client")
		Expect(client.Enrolled).To(BeTrue())
		got := runIn(ctx, host{}, nil, built.evenkeel, "withdraw", "--pod", "default/client", "--pin-dir", dir)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(inspected(ctx, name).pod("client").Enrolled).To(BeFalse())
		got = sim(ctx, "exec", "--name", name, "node/left", "--", built.evenkeel, "enrol", "--pod", "default/client",
			"--netns", client.Netns, "--pin-dir", dir)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(inspected(ctx, name).pod("client").Enrolled).To(BeTrue())
	})

	It("is listed and inspected", func(ctx SpecContext) {
		Expect(sim(ctx, "ls").stdout).To(ContainSubstring(name))
		table := sim(ctx, "inspect", name)
		Expect(table.code).To(BeZero(), "%+v", table)
		Expect(table.stdout).To(And(ContainSubstring("left"), ContainSubstring("web-1"), ContainSubstring("10.10.2.")))
		var told map[string]any
		Expect(json.Unmarshal([]byte(sim(ctx, "inspect", name, "-o", "json").stdout), &told)).To(Succeed())
		Expect(told).To(And(HaveKey("version"), HaveKey("nodes"), HaveKey("pods")))
	})

	It("knows that an uninstall has withdrawn pods, and enrols them again", func(ctx SpecContext) {
		enrolled := func() map[string]bool {
			GinkgoHelper()
			var told netsim.Info
			Expect(json.Unmarshal([]byte(sim(ctx, "inspect", name, "-o", "json").stdout), &told)).To(Succeed())
			all := map[string]bool{}
			for _, pod := range told.Pods {
				all[pod.Name] = pod.Enrolled
			}
			return all
		}
		before := enrolled()
		Expect(before).To(HaveKeyWithValue("client", true))
		got := sim(ctx, "exec", "--name", name, "node/left", "--", built.evenkeel, "uninstall", "--yes", "--take-over",
			"--pin-dir", filepath.Join(bpffs, "evenkeel-sim", name, "left"), "--state-dir", GinkgoT().TempDir())
		Expect(got.code).To(BeZero(), "%+v", got)
		after := enrolled()
		Expect(after).To(And(HaveKeyWithValue("client", false), Not(Equal(before))))
		got = sim(ctx, "apply", path)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(enrolled()).To(Equal(before))
		got = sim(ctx, "call", "--name", name, "client", "tcp://10.96.0.10:7", "hello")
		Expect(got.stdout).To(Equal("hello\n"), "%+v", got)
	})

	It("exits as a shell does for a command that cannot be run", func(ctx SpecContext) {
		plain := filepath.Join(GinkgoT().TempDir(), "plain")
		Expect(os.WriteFile(plain, []byte("text"), 0o644)).To(Succeed())
		for command, want := range map[string]int{"no-such-command": 127, "/no/such/command": 127, plain: 126, "/": 126} {
			got := sim(ctx, "exec", "--name", name, "client", "--", command)
			Expect(got.code).To(Equal(want), "%+v", got)
			Expect(got.stderr).To(ContainSubstring(command))
		}
	})

	It("refuses to be made twice and says what to do", func(ctx SpecContext) {
		got := sim(ctx, "up", path)
		Expect(got.code).To(Equal(1))
		Expect(got.stderr).To(And(ContainSubstring(name), ContainSubstring("down")))
	})

	It("keeps logs of pods and agents", func(ctx SpecContext) {
		Expect(sim(ctx, "logs", "--name", name, "node/left").stdout).NotTo(BeEmpty())
		Expect(sim(ctx, "logs", "--name", name, "web-0").code).To(BeZero())
	})

	DescribeTable("draws itself", func(ctx SpecContext, format, want string) {
		got := sim(ctx, "graph", "--name", name, "--format", format)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(got.stdout).To(And(ContainSubstring(want), ContainSubstring("left"), ContainSubstring("web-1")))
	},
		Entry("mermaid", "mermaid", "flowchart"), Entry("dot", "dot", "graph"), Entry("html", "html", "<svg"))

	It("applies what changed", func(ctx SpecContext) {
		text, err := os.ReadFile(path)
		Expect(err).NotTo(HaveOccurred())
		text = bytes.Replace(text, []byte("name: web, node: right, count: 2"), []byte("name: web, node: right, count: 3"), 1)
		Expect(os.WriteFile(path, text, 0o644)).To(Succeed())
		got := sim(ctx, "apply", path)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(sim(ctx, "inspect", name).stdout).To(ContainSubstring("web-2"))
		Expect(sim(ctx, "exec", "--name", name, "web-2", "--", "true").code).To(BeZero())
	})

	It("leaves a running lab alone when it collects garbage", func(ctx SpecContext) {
		Expect(sim(ctx, "gc").code).To(BeZero())
		Expect(sim(ctx, "exec", "--name", name, "client", "--", "true").code).To(BeZero())
	})

	It("is taken down without its file, and twice", func(ctx SpecContext) {
		Expect(sim(ctx, "down", "--name", name).code).To(BeZero())
		Eventually(ctx, func() []string { return remains(name) }).Should(BeEmpty())
		Expect(sim(ctx, "down", "--name", name).code).To(BeZero())
	})
})

var _ = Describe("evenkeel sim, told something wrong", func() {
	DescribeTable("says what and where", func(ctx SpecContext, spec, want string) {
		path, name := simFile(spec)
		got := sim(ctx, "up", path)
		Expect(got.code).To(Equal(1), "%+v", got)
		Expect(got.stderr).To(And(ContainSubstring(filepath.Base(path)+":"), ContainSubstring(want)))
		Expect(remains(name)).To(BeEmpty(), "nothing was begun")
	},
		Entry("an unknown field", "\n  nodes:\n  - {name: a, podCIDRs: [10.10.1.0/24], color: red}\n", "color"),
		Entry("a pod on no node",
			"\n  nodes:\n  - {name: a, podCIDRs: [10.10.1.0/24]}\n  pods:\n  - {name: p, node: b}\n", "b"),
		Entry("a wire to nowhere",
			"\n  nodes:\n  - {name: a, podCIDRs: [10.10.1.0/24]}\n  wires:\n  - {between: [a, z]}\n", "z"),
		Entry("CIDRs that overlap",
			"\n  nodes:\n  - {name: a, podCIDRs: [10.10.0.0/16]}\n  - {name: b, podCIDRs: [10.10.2.0/24]}\n", "overlap"),
		Entry("more pods than addresses",
			"\n  nodes:\n  - {name: a, podCIDRs: [10.10.1.0/30]}\n  pods:\n  - {name: p, node: a, count: 9}\n", "address"),
	)

	It("says why pods could not be enrolled, not only how many", func(ctx SpecContext) {
		path, name := simFile(`
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24]}
  agent: {enabled: true, args: [--max-workloads=1]}
  pods:
  - {name: p, node: a, count: 2, enrol: true}
`)
		got := sim(ctx, "up", path)
		Expect(got.code).To(Equal(1), "%+v", got)
		Expect(got.stderr).To(And(ContainSubstring("--max-workloads"), MatchRegexp(`default/p-[01]`)))
		Expect(remains(name)).To(BeEmpty())
	})

	It("exits 1 for a lab that is not there and 2 for a line that is wrong", func(ctx SpecContext) {
		got := sim(ctx, "exec", "--name", "nowhere", "pod", "--", "true")
		Expect(got.code).To(Equal(1), "%+v", got)
		Expect(got.stderr).To(ContainSubstring("nowhere"))
		Expect(sim(ctx, "up").code).To(Equal(2))
		Expect(sim(ctx, "graph", "--format", "png").code).To(Equal(2))
	})
})

// A lab of many pods: how long the command says that it took, and that it is gone after.
var _ = Describe("evenkeel sim, many pods", Serial, func() {
	const noisy = 3 // machines that run other things meanwhile
	DescribeTable("is up within seconds", func(ctx SpecContext, pods int, enrolled bool, bound time.Duration) {
		path, name := simFile(fmt.Sprintf(`
  agent: {enabled: %t, unchecked: true}
  nodes:
  - {name: left, podCIDRs: [10.10.0.0/20, "fd00:10:1::/64"]}
  - {name: right, podCIDRs: [10.20.0.0/20, "fd00:10:2::/64"]}
  wires:
  - {between: [left, right]}
  pods:
  - {name: l, node: left, count: %d, enrol: %t}
  - {name: r, node: right, count: %d, enrol: %t}
`, enrolled, pods/2, enrolled, pods/2, enrolled))
		command := host{}.Command(ctx, built.evenkeel, "sim", "up", path)
		start := time.Now()
		got := finish(command)
		took := time.Since(start)
		Expect(got.code).To(BeZero(), "%+v", got)
		AddReportEntry(fmt.Sprintf("%d pods up", pods), fmt.Sprintf("%v; it says: %s", took, lastLine(got)),
			ReportEntryVisibilityAlways)
		cpu := command.ProcessState.UserTime() + command.ProcessState.SystemTime()
		Expect(cpu).To(BeNumerically("<", 2*bound), "two processors work no longer than that")
		if os.Getenv("CI") != "" { // where nothing else is meant to run
			Expect(took).To(BeNumerically("<", noisy*bound))
		}
		start = time.Now()
		Expect(sim(ctx, "down", "--name", name).code).To(BeZero())
		AddReportEntry(fmt.Sprintf("%d pods down", pods), time.Since(start), ReportEntryVisibilityAlways)
	}, Entry("200", 200, false, time.Second), Entry("1,000", 1000, false, 4*time.Second),
		Entry("200, enrolled", 200, true, time.Second), Entry("1,000, enrolled", 1000, true, 4*time.Second))
})

func lastLine(got result) string {
	lines := strings.Split(strings.TrimSpace(got.stdout+got.stderr), "\n")
	return lines[len(lines)-1]
}
