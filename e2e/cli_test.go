// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// as checks that JSON has these members, and perhaps more: that is what a version of a document promises.
type as map[string]any

// expectMembers compares a decoded document with what it must have: maps member by member, lists element by element
// from the first, the rest as it is. A nil stands for any value that is there.
func expectMembers(got any, want any, path string) {
	GinkgoHelper()
	switch want := want.(type) {
	case nil:
	case as:
		object, is := got.(map[string]any)
		Expect(is).To(BeTrue(), "%s is an object: %v", path, got)
		for key, value := range want {
			Expect(object).To(HaveKey(key), path)
			expectMembers(object[key], value, path+"."+key)
		}
	case []any:
		list, is := got.([]any)
		Expect(is).To(BeTrue(), "%s is a list: %v", path, got)
		Expect(len(list)).To(BeNumerically(">=", len(want)), path)
		for i, value := range want {
			expectMembers(list[i], value, path+"[]")
		}
	default:
		Expect(got).To(BeEquivalentTo(want), path)
	}
}

// byName are members whose own members are names of other things: of counters, maps, kinds, labels.
var byName = map[string]bool{
	"counters": true, "writes": true, "objects": true, "skipped": true, "connects": true, "labels": true,
}

// undocumented returns the members that docs/CLI.md does not name.
func undocumented(manual string, got any) (missing []string) {
	switch got := got.(type) {
	case map[string]any:
		for key, value := range got {
			if !strings.Contains(manual, "`"+key+"`") {
				missing = append(missing, key)
			}
			if !byName[key] {
				missing = append(missing, undocumented(manual, value)...)
			}
		}
	case []any:
		for _, value := range got {
			missing = append(missing, undocumented(manual, value)...)
		}
	}
	return missing
}

// manual returns docs/CLI.md.
func manual() string {
	GinkgoHelper()
	_, here, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../docs/CLI.md"))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

var _ = Describe("The command line", Ordered, ContinueOnFailure, func() {
	var l *lab
	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, twoNodes+`
  - {name: client, node: left, enrol: true}
  - {name: plain, node: left}
  - {name: web, node: right, count: 2, enrol: true, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10"), webService("empty", "10.96.0.20")))
		l.expectPorts(ctx, "left", 6+3)
		expectServed(ctx, l.pod("client"), "10.96.0.10:7")
	})

	// document parses what a command prints with -o json, and holds it against what docs/CLI.md promises.
	document := func(got result, want any) {
		GinkgoHelper()
		var told any
		Expect(json.Unmarshal([]byte(got.stdout), &told)).To(Succeed(), "%+v", got)
		expectMembers(told, as{"version": "v1"}, "")
		expectMembers(told, want, "")
		Expect(undocumented(manual(), told)).To(BeEmpty(), "docs/CLI.md names every member")
	}
	run := func(ctx SpecContext, args ...string) result { return l.evenkeel(ctx, "left", args...) }

	Describe("status", func() {
		It("exits 0 where all is well", func(ctx SpecContext) {
			got := run(ctx, "status")
			Expect(got.code).To(BeZero(), "%+v", got)
			Expect(got.stdout).To(And(ContainSubstring("healthy"), ContainSubstring("connect4"),
				ContainSubstring("default/client"), ContainSubstring("default/plain")))
			document(run(ctx, "status", "-o", "json"), as{
				"healthy": true, "problems": []any{}, "pinDirectory": l.pins("left"),
				"agent": as{"running": true, "answers": true, "ready": true, "pid": l.agentPID("left"), "node": "left",
					"command": nil, "since": nil, "release": nil, "epoch": nil},
				"word": as{"epoch": nil, "floor": 1, "serve": 1, "canary": 0, "share": 0, "last": 1, "phase": nil},
				"hooks": []any{as{"name": "connect4", "at": nil, "ok": true, "misses": 0, "entry": nil, "link": nil,
					"slots": nil}},
				"generations": []any{as{"number": 1, "live": true, "counters": as{"connect": nil, "refused_no_port": nil}}},
				"maps":        []any{as{"map": nil, "used": nil, "capacity": nil, "flag": nil, "bytes": nil}},
				"sources":     []any{as{"name": nil, "path": l.source(), "synced": true, "read": nil, "objects": as{}}},
				"workloads":   []any{as{"name": "default/client", "enrolled": true, "addresses": []any{}}},
				"engine":      as{"applied": nil, "failed": 0, "writes": as{}, "pending": 0},
				"others":      []any{}, "damages": []any{}, "steps": []any{},
			})
		})

		It("exits 1 without an agent, says so, and shows what is pinned", func(ctx SpecContext) {
			Expect(l.stopAgent(ctx, "left", syscall.SIGKILL)).NotTo(Succeed())
			DeferCleanup(func(ctx SpecContext) { l.startAgent(ctx, "left") })
			got := run(ctx, "status")
			Expect(got.code).To(Equal(1))
			Expect(got.stdout).To(And(ContainSubstring("no agent is running"), ContainSubstring("connect4")))
			document(run(ctx, "status", "-o", "json"), as{"healthy": false, "agent": as{"running": false, "answers": false},
				"hooks": []any{as{"name": "connect4", "ok": true}}, "generations": []any{as{"number": 1, "live": true}}})
		})

		It("exits 1 where nothing is installed, and says what to do", func(ctx SpecContext) {
			got := runIn(ctx, host{}, nil, built.evenkeel, "status", "--pin-dir", bpffs+"/e2e-nothing", "--admin", "/nowhere")
			Expect(got.code).To(Equal(1), "%+v", got)
			Expect(got.stderr).To(ContainSubstring(bpffs + "/e2e-nothing"))
		})
	})

	Describe("dump", func() {
		It("shows services by name", func(ctx SpecContext) {
			Expect(run(ctx, "dump", "services").stdout).To(And(ContainSubstring("default/web"), ContainSubstring("10.96.0.10")))
			document(run(ctx, "dump", "services", "-o", "json"), as{"services": []any{
				as{"name": "default/empty", "addresses": []any{"10.96.0.20"}, "origin": nil,
					"ports": []any{as{"address": nil, "protocol": nil, "served": true}}},
				as{"name": "default/web"}}})
		})

		It("shows endpoints by name", func(ctx SpecContext) {
			Expect(run(ctx, "dump", "endpoints").stdout).To(And(ContainSubstring("default/web"), ContainSubstring("web-1")))
			document(run(ctx, "dump", "endpoints", "-o", "json"), as{"endpoints": []any{as{"service": "default/web",
				"port": nil, "protocol": nil, "address": nil, "level": "ready", "workload": nil, "weight": 1, "ready": true}}})
		})

		It("shows workloads by name", func(ctx SpecContext) {
			Expect(run(ctx, "dump", "workloads").stdout).To(ContainSubstring("default/client"))
			document(run(ctx, "dump", "workloads", "-o", "json"),
				as{"workloads": []any{as{"name": "default/client", "enrolled": true}}})
		})

		It("shows the flows that there are, and an empty list where there is none", func(ctx SpecContext) {
			flowing := hold(ctx, l.pod("client"), "tcp=10.96.0.10:7")
			Expect(run(ctx, "dump", "flows").stdout).To(And(ContainSubstring("default/client"), ContainSubstring("default/web"),
				ContainSubstring("10.96.0.10:7")))
			document(run(ctx, "dump", "flows", "-o", "json"), as{"flows": []any{as{
				"client": "default/client", "local": nil, "protocol": "TCP", "dialled": "10.96.0.10:7", "service": "default/web",
				"peer": nil, "endpoint": nil, "stamp": 1, "ran": 1, "state": "established", "since": nil, "cookie": nil}}})
			flowing.expectUnharmed()
			Eventually(ctx, func() string { return run(ctx, "dump", "flows", "-o", "json").stdout }).
				ShouldNot(ContainSubstring("10.96.0.10:7"), "a socket that is closed takes its state along")
		})

		It("works from the pins without an agent", func(ctx SpecContext) {
			Expect(l.stopAgent(ctx, "left", syscall.SIGKILL)).NotTo(Succeed())
			DeferCleanup(func(ctx SpecContext) { l.startAgent(ctx, "left") })
			for _, what := range []string{"services", "endpoints", "workloads", "flows"} {
				Expect(run(ctx, "dump", what).code).To(BeZero(), what)
			}
			Expect(run(ctx, "dump", "services").stdout).To(ContainSubstring("10.96.0.10"))
			Expect(run(ctx, "dump", "workloads").stdout).To(ContainSubstring("default/client"))
		})

		It("fails where it cannot read: an empty answer means empty", func(ctx SpecContext) {
			for _, what := range []string{"services", "endpoints", "workloads", "flows"} {
				got := runIn(ctx, host{}, nil, built.evenkeel, "dump", what, "--pin-dir", bpffs+"/e2e-nothing",
					"--admin", "/nowhere")
				Expect(got.code).To(Equal(1), "%+v", got)
				Expect(got.stdout).To(BeEmpty())
			}
		})
	})

	explained := func(ctx SpecContext, question []string, outcome, why string) {
		got := run(ctx, append([]string{"explain"}, question...)...)
		Expect(got.stdout).To(ContainSubstring(why), "%+v", got)
		document(run(ctx, append([]string{"explain", "-o", "json"}, question...)...), as{"outcome": outcome, "reason": nil,
			"workload": question[0], "service": nil, "generation": nil})
	}

	DescribeTable("explain says what becomes of a connection", explained,
		Entry("by name", []string{"default/client", "web:80"}, "selected", "web-0"),
		Entry("by name and namespace", []string{"default/client", "default/web:80"}, "selected", "web-1"),
		Entry("by address", []string{"default/client", "10.96.0.10:7/udp"}, "selected", "web-1"),
		Entry("by address, IPv6", []string{"default/client", "[fd00:96::10]:7"}, "selected", "web-1"),
		Entry("to a port that is not there", []string{"default/client", "web:81"}, "refused", "port 81"),
		Entry("without endpoints", []string{"default/client", "empty:80"}, "refused", "refused_no_endpoint"),
		Entry("to no service", []string{"default/client", "192.0.2.1:80"}, "passed", "no service"),
		Entry("of a pod that is not enrolled", []string{"default/plain", "web:80"}, "passed", "not enrolled"),
	)

	It("tells by doctor that this kernel will do", func(ctx SpecContext) {
		got := runIn(ctx, host{}, nil, built.evenkeel, "doctor")
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(got.stdout).To(And(ContainSubstring("sk_lookup"), ContainSubstring("cgroup")))
		document(runIn(ctx, host{}, nil, built.evenkeel, "doctor", "-o", "json"), as{"ok": true, "kernel": nil,
			"others": []any{}, "checks": []any{as{"name": nil, "ok": true, "needed": nil, "detail": nil}}})
	})

	It("describes labs", func(ctx SpecContext) {
		document(runIn(ctx, host{}, nil, built.evenkeel, "sim", "inspect", l.name, "-o", "json"), as{"name": l.name,
			"nodes": []any{as{"name": "left", "agent": as{"state": "running"}}}, "wires": []any{as{"mtu": 1500}},
			"pods": []any{as{"namespace": "default", "name": nil, "netns": nil, "enrolled": nil}}})
		document(runIn(ctx, host{}, nil, built.evenkeel, "sim", "ls", "-o", "json"),
			as{"labs": []any{as{"name": nil, "state": nil}}})
	})

	It("has a version", func(ctx SpecContext) {
		Expect(runIn(ctx, host{}, nil, built.evenkeel, "version").stdout).NotTo(BeEmpty())
		document(runIn(ctx, host{}, nil, built.evenkeel, "version", "-o", "json"),
			as{"release": nil, "object": nil, "go": nil})
	})

	DescribeTable("completes itself in", func(ctx SpecContext, shell string) {
		got := runIn(ctx, host{}, nil, built.evenkeel, "completion", shell)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(got.stdout).To(ContainSubstring("evenkeel"))
	}, Entry("bash", "bash"), Entry("zsh", "zsh"), Entry("fish", "fish"), Entry("PowerShell", "powershell"))

	DescribeTable("exits 2 for a line that is wrong, and names the help", func(ctx SpecContext, args ...string) {
		got := runIn(ctx, host{}, nil, built.evenkeel, args...)
		Expect(got.code).To(Equal(2), "%+v", got)
		Expect(got.stderr).To(ContainSubstring("--help"))
		Expect(got.stdout).To(BeEmpty())
	},
		Entry("an unknown command", "statsu"), Entry("an unknown flag", "status", "--frobnicate"),
		Entry("an agent without a node", "agent"),
		Entry("a size that is none", "agent", "--node=a", "--source=/", "--max-services=0"),
		Entry("a form that is none", "status", "-o", "xml"), Entry("an unknown table", "dump", "cheese"),
		Entry("a question without a service", "explain", "default/client"),
		Entry("a port that is none", "explain", "default/client", "web:http"), Entry("too much", "version", "now"),
	)

	DescribeTable("has help worth reading", func(ctx SpecContext, command string) {
		got := runIn(ctx, host{}, nil, built.evenkeel, command, "--help")
		Expect(got.code).To(BeZero())
		Expect(got.stdout).To(ContainSubstring("evenkeel " + command))
		Expect(got.stdout).To(ContainSubstring("Examples:"))
	}, Entry(nil, "agent"), Entry(nil, "enrol"), Entry(nil, "withdraw"), Entry(nil, "status"), Entry(nil, "dump"),
		Entry(nil, "explain"), Entry(nil, "doctor"), Entry(nil, "uninstall"), Entry(nil, "sim"))

	It("is answered by the agent to root only", func(ctx SpecContext) {
		socket := l.admin("left")
		Expect(os.Stat(socket)).To(HaveField("Mode()", os.ModeSocket|0o600))
		asNobody := func() result {
			command := exec.CommandContext(ctx, built.client, "get", "-unix", socket, "http://agent/v1/status")
			command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			output, err := command.CombinedOutput()
			_ = err // the exit code tells
			return result{stdout: string(output), code: command.ProcessState.ExitCode()}
		}
		refused := asNobody()
		Expect(refused.code).To(Equal(1))
		Expect(refused.stdout).To(ContainSubstring("permission denied"))
		// The mode is one lock, and the peer's user another.
		Expect(os.Chmod(socket, 0o666)).To(Succeed())
		DeferCleanup(os.Chmod, socket, os.FileMode(0o600))
		Expect(asNobody().stdout).To(And(ContainSubstring(`"status":403`), Not(ContainSubstring("healthy"))))
		Expect(ask[report.Response](ctx, host{}, "get", "-unix", socket, "http://agent/v1/status")[0].Status).To(Equal(200))
	})

	It("is served as metrics, which say when the agent is ready", func(ctx SpecContext) {
		const address = "http://127.0.0.1:15090"
		got := ask[report.Response](ctx, l.Node("left"), "get", address+"/metrics")[0]
		Expect(got.Status).To(Equal(200))
		Expect(got.Body).To(And(ContainSubstring("# HELP evenkeel_"), ContainSubstring(`"refused_no_port"`)))
		Expect(ask[report.Response](ctx, l.Node("left"), "get", address+"/readyz")[0].Status).To(Equal(200))
	})
})
