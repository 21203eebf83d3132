// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// benchResults are what docs/CLI.md says of the benchmark's document, as far as specs look at it.
type benchResults struct {
	Version string `json:"version"`
	Seed    uint64 `json:"seed"`
	Machine struct {
		Kernel string `json:"kernel"`
		CPUs   int    `json:"cpus"`
	} `json:"machine"`
	Rows     []map[string]any `json:"rows"`
	Gates    []benchGate      `json:"gates"`
	Problems []struct{ Row, Reason string }
}

type benchGate struct {
	Trial, Metric string
	Rows          []string
	Value         float64
	OK            bool
}

func (r *benchResults) row(id string) map[string]any {
	GinkgoHelper()
	for _, row := range r.Rows {
		if row["id"] == id {
			return row
		}
	}
	Fail(fmt.Sprintf("there is no row %s", id))
	return nil
}

var _ = Describe("The benchmark", func() {
	// measure runs few rounds of some rows. How fast this machine is, and whether it is quiet, is no matter of a spec.
	measure := func(ctx context.Context, args ...string) (benchResults, int) {
		GinkgoHelper()
		got := runIn(ctx, host{}, nil, built.evenkeel, append([]string{"bench", "-o", "json", "--check", "--rounds=3",
			"--services=50", "--patience=0s", "--seed=42"}, args...)...)
		Expect(got.code).To(BeNumerically("<=", 2), got.stderr)
		var results benchResults
		Expect(json.Unmarshal([]byte(got.stdout), &results)).To(Succeed(), "one object: %s%s", got.stdout, got.stderr)
		for _, p := range results.Problems {
			Expect(p.Reason).To(Or(ContainSubstring("undisturbed"), ContainSubstring("void")), "%s was measured", p.Row)
		}
		return results, got.code
	}

	It("measures real pods, maps and agents, and prints one object", func(ctx SpecContext) {
		ids := []string{"established-p50-source-off", "connect-ns", "connect-rate-c8", "nat-rate-c8", "bpf-ns",
			"change-p50-100", "maps-100", "idle-wakeups"}
		results, code := measure(ctx, "--only", strings.Join(ids, ","))
		Expect(results.Version).To(Equal("v1"))
		Expect(results.Seed).To(BeEquivalentTo(42))
		Expect(results.Machine.Kernel).NotTo(BeEmpty())
		Expect(results.Machine.CPUs).To(BeNumerically(">", 0))
		Expect(results.Rows).To(HaveLen(len(ids)))
		answers := map[any]int{}
		for _, id := range ids {
			row := results.row(id)
			for _, member := range []string{"id", "unit", "value", "low", "high", "to_reach", "ok", "command"} {
				Expect(row).To(HaveKey(member), "row %s", id)
			}
			Expect(row).To(HaveLen(8), "row %s", id)
			Expect(row["value"]).To(BeNumerically(">=", row["low"]), "row %s", id)
			Expect(row["value"]).To(BeNumerically("<=", row["high"]), "row %s", id)
			Expect(row["command"]).To(HavePrefix("evenkeel bench --only " + id + " "))
			answers[row["ok"]]++
		}
		Expect(answers["yes"]+answers["no"]+answers["undecided"]).To(Equal(len(ids)), "%v", answers)
		switch {
		case answers["no"] > 0:
			Expect(code).To(Equal(1), "%v", answers)
		case answers["undecided"] > 0:
			Expect(code).To(Equal(2), "%v", answers)
		default:
			Expect(code).To(BeZero())
		}
		// Bounds that no machine leaves, and no stub would keep.
		Expect(results.row("connect-rate-c8")["value"]).To(BeNumerically("~", 1, 0.5))
		Expect(results.row("nat-rate-c8")["value"]).To(BeNumerically("~", 1.2, 0.6))
		Expect(results.row("bpf-ns")["value"]).To(BeNumerically(">", 300))
		Expect(results.row("maps-100")["value"]).To(And(BeNumerically(">", 0.1), BeNumerically("<=", 1)), "memory is no noise")
		Expect(results.Gates).NotTo(BeEmpty())
	})

	It("says undecided where no mesh does not agree with itself", func(ctx SpecContext) {
		const row = "established-p50-source-off"
		results, code := measure(ctx, "--only", row, "--control", "slow-again")
		Expect(results.Gates).To(ContainElement(And(HaveField("OK", false), HaveField("Value", BeNumerically(">", 1.1)),
			HaveField("Rows", ConsistOf(row)))), "the gate sees what is wasted in the second no mesh")
		Expect(results.row(row)["ok"]).To(Equal("undecided"))
		Expect(code).To(Equal(2))
	})

	It("sees a mesh that is slow", func(ctx SpecContext) {
		const row = "established-p50-source-off"
		results, code := measure(ctx, "--only", row, "--control", "slow-mesh")
		Expect(results.row(row)["low"]).To(BeNumerically(">", 1.05), "what is wasted in the mesh shows")
		Expect(results.row(row)["ok"]).NotTo(Equal("yes"))
		Expect(code).NotTo(BeZero())
	})

	It("writes a table, a file for scripts and a page", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		got := runIn(ctx, host{}, nil, built.evenkeel, "bench", "--only=maps-100", "--rounds=1", "--dir", dir)
		Expect(got.code).To(BeZero(), got.stderr)
		Expect(got.stdout).To(And(ContainSubstring("maps-100"), ContainSubstring("1 reached"),
			ContainSubstring(filepath.Join(dir, "results.html"))))
		page, err := os.ReadFile(filepath.Join(dir, "results.html"))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(page)).To(And(ContainSubstring("maps-100"), ContainSubstring("<svg")))
		again := runIn(ctx, host{}, nil, built.evenkeel, "bench", "--from", filepath.Join(dir, "results.json"), "-o", "json")
		Expect(again.code).To(BeZero(), again.stderr)
		Expect(os.ReadFile(filepath.Join(dir, "results.json"))).To(MatchJSON(again.stdout))
	})

	DescribeTable("refuses before it measures", func(ctx SpecContext, want string, args ...string) {
		got := runIn(ctx, host{}, nil, built.evenkeel, append([]string{"bench"}, args...)...)
		Expect(got.code).To(Equal(2))
		Expect(got.stdout).To(BeEmpty())
		Expect(got.stderr).To(ContainSubstring(want))
	},
		Entry("a row that is none", "connect-rate-c9", "--only=connect-rate-c9", "-o", "json"),
		Entry("another form", "table and json", "-o", "yaml"),
		Entry("a control that is none", "slow-again", "--control=x"),
		Entry("arguments", "one too many", "connect-ns"),
	)

	It("measures an upgrade, and notices an event that meets two generations", func(ctx SpecContext) {
		upgrade := func(binary string) *benchResults {
			GinkgoHelper()
			got := runIn(ctx, host{}, nil, binary, "bench", "upgrade", "-o", "json", "--rounds=1", "--only", "rollback-ms,mixed",
				"--seed=42")
			Expect(got.code).To(BeZero(), got.stderr)
			var results benchResults
			Expect(json.Unmarshal([]byte(got.stdout), &results)).To(Succeed(), "one object: %s%s", got.stdout, got.stderr)
			Expect(results.Problems).To(BeEmpty())
			Expect(results.Rows).To(HaveLen(2))
			Expect(results.row("rollback-ms")["value"]).To(BeNumerically(">", 0))
			Expect(results.row("mixed")["command"]).To(Equal("evenkeel bench upgrade --only mixed --seed 42"))
			return &results
		}
		Expect(upgrade(built.evenkeel).row("mixed")["value"]).To(BeZero())
		Expect(upgrade(built.controls["ignore_stamp"]).row("mixed")["value"]).To(BeNumerically(">", 0),
			"programs that do not look at the stamp")
	})
})
