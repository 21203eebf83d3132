// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// What releases differ by: a bit of a byte of the constant config, which names controls.
type control struct {
	byte int
	bit  byte
}

var (
	noControl   = control{7, 1 << 7} // which no program reads
	refusesSome = control{4, 1 << 3} // every third connection
)

// anotherRelease writes the release of a build once more, as another: with a control that it had not.
func anotherRelease(ctx SpecContext, lab *netsim.Lab, node, label string, c control) string {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "evenkeel-release-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	path := filepath.Join(dir, label)
	_, err = command(ctx, lab, node, "upgrade", "verify", "--write", path)
	Expect(err).NotTo(HaveOccurred())
	packed, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	z, err := gzip.NewReader(bytes.NewReader(packed))
	Expect(err).NotTo(HaveOccurred())
	var release map[string]any
	Expect(json.NewDecoder(z).Decode(&release)).To(Succeed())
	variables := release["variables"].(map[string]any)
	config, err := base64.StdEncoding.DecodeString(variables["config"].(string))
	Expect(err).NotTo(HaveOccurred())
	config[c.byte] ^= c.bit
	variables["config"], release["label"] = base64.StdEncoding.EncodeToString(config), label
	var out bytes.Buffer
	to := gzip.NewWriter(&out)
	Expect(json.NewEncoder(to).Encode(release)).To(Succeed())
	Expect(to.Close()).To(Succeed())
	Expect(os.WriteFile(path, out.Bytes(), 0o600)).To(Succeed())
	return path
}

// upgrader are the commands of a node whose agent does not run.
type upgrader struct {
	lab  *netsim.Lab
	node string
}

func (u upgrader) args(args ...string) []string {
	GinkgoHelper()
	return append(append([]string{"upgrade"}, args...), "--cgroup", nodeInfo(u.lab, u.node).Cgroup)
}

func (u upgrader) do(ctx SpecContext, args ...string) {
	GinkgoHelper()
	_, err := command(ctx, u.lab, u.node, u.args(args...)...)
	Expect(err).NotTo(HaveOccurred())
}

// supervised performs one of the commands.
func (u upgrader) supervised(args ...string) func(SpecContext, supervisor.Decide) performed {
	return func(ctx SpecContext, decide supervisor.Decide) performed {
		GinkgoHelper()
		args := append(u.args(args...), "--pin-dir", nodeInfo(u.lab, u.node).PinDir)
		return ended(fault.Supervise(u.lab.Node(u.node).Command(ctx, evenkeel(), args...), faultProcess(), nil, decide))
	}
}

// event is one entry of a node's history.
type event struct{ Kind, Text string }

// history returns the last event.
func (u upgrader) history(ctx SpecContext) event {
	GinkgoHelper()
	out, err := command(ctx, u.lab, u.node, "upgrade", "history", "-o", "json")
	Expect(err).NotTo(HaveOccurred())
	var history struct{ Events []event }
	Expect(json.Unmarshal([]byte(out), &history)).To(Succeed())
	Expect(history.Events).NotTo(BeEmpty())
	return history.Events[len(history.Events)-1]
}

// attempts are new connections of the client to both nodes, which all should pass. A canary may cost some of them, so they
// are in no run.
type attempts struct {
	client    *flow.Client
	recording string
}

func beginAttempts(ctx SpecContext, lab *netsim.Lab) *attempts {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "evenkeel-attempts-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	a := &attempts{recording: filepath.Join(dir, "client.ndjson")}
	plan := &flow.Plan{Flows: slices.DeleteFunc(everyKind(), func(s flow.Spec) bool { return s.Kind != "probe" })}
	a.client, err = flow.StartClient(context.WithoutCancel(ctx), lab.Pod("client"), instrument(), plan, a.recording)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(a.client.Stop)
	return a
}

// end says how many there were, and how many did not pass.
func (a *attempts) end() (sent, wrong uint64) {
	GinkgoHelper()
	Expect(a.client.Stop()).To(Succeed())
	report, err := record.JudgeFiles(a.recording)
	Expect(err).NotTo(HaveOccurred())
	for _, d := range report.Details {
		sent, wrong = sent+d.Sent, wrong+d.Wrong
	}
	Expect(sent).NotTo(BeZero())
	return sent, wrong
}

// expectAttempts makes new connections for a moment, and matches how many do not pass.
func expectAttempts(ctx SpecContext, lab *netsim.Lab, wrong types.GomegaMatcher) {
	GinkgoHelper()
	a := beginAttempts(ctx, lab)
	during(ctx, time.Second)
	_, n := a.end()
	Expect(n).To(wrong)
}

// triedOn is what a bad canary must leave whole: connections that there are, and what must be refused.
func triedOn() []flow.Spec {
	return append(established(),
		slices.DeleteFunc(refused(), func(s flow.Spec) bool { return !strings.HasPrefix(s.Name, "no such port") })...)
}

// whole makes sure that the node's pinned state is in order, and that one generation is all there is if alone is set.
func (u upgrader) whole(ctx SpecContext, alone bool) {
	GinkgoHelper()
	out, err := command(ctx, u.lab, u.node, "upgrade", "status", "-o", "json")
	Expect(err).NotTo(HaveOccurred())
	var status struct {
		Phase       string
		Generations []struct{ Number int }
		Damages     *[]any
	}
	Expect(json.Unmarshal([]byte(out), &status)).To(Succeed())
	Expect(status.Phase).To(Equal("idle"))
	if alone {
		Expect(status.Generations).To(HaveLen(1))
	}
	Expect(status.Damages).To(HaveValue(BeEmpty()), "nil: this evenkeel does not tell")
}

// A release comes, goes and gets other sizes, and is killed at any step of that, and again in the recovery: no flow
// notices, and in the end there is what there is after an undisturbed one.
var _ = Describe("Upgrades", Label("dataplane:evenkeel", "upgrade", "fault:kill-at"), Ordered, ContinueOnFailure, func() {
	const node = "a"
	const limit = SpecTimeout(8 * time.Minute)
	var u upgrader
	var other, bad string
	words := func(text string) (string, error) {
		text, err := supervisable(u.lab, node).Words(text)
		text = strings.NewReplacer(other, "{other}", bad, "{bad}").Replace(text)
		text = generationNumbers.ReplaceAllString(text, "gen/#")
		return recordedPlace.ReplaceAllString(text, "$1#)"), err
	}
	BeforeAll(func(ctx SpecContext) {
		u = upgrader{newMeshLab(ctx, evenkeel()), node}
		Expect(u.lab.RestartAgent(ctx, node)).To(Succeed())
		other = anotherRelease(ctx, u.lab, node, "another", noControl)
		bad = anotherRelease(ctx, u.lab, node, "bad", refusesSome)
		killAgent(ctx, u.lab, node)
	})

	// base has the release of this build serve, and nothing beside it.
	base := func(ctx SpecContext) {
		GinkgoHelper()
		u.do(ctx, "apply")
		u.do(ctx, "retire")
		u.whole(ctx, true)
	}
	upgraded := func(ctx SpecContext) { GinkgoHelper(); u.do(ctx, "apply", "--to", other) }

	// procedures are those that are killed. Each begins where the flows run, too.
	procedures := []struct {
		what  string
		parts int
		make  func(SpecContext) *procedure
	}{
		{"upgrading", 24, func(ctx SpecContext) *procedure {
			base(ctx)
			upgraded(ctx)
			had := take(u.lab)
			return &procedure{name: "upgrade", begin: base, perform: u.supervised("apply", "--to", other), complete: upgraded,
				check: func(ctx SpecContext) { u.whole(ctx, false); same(ctx, u.lab, had, byName) }}
		}},
		{"going back", 8, func(ctx SpecContext) *procedure {
			base(ctx)
			had := take(u.lab)
			return &procedure{name: "rollback", begin: func(ctx SpecContext) { base(ctx); upgraded(ctx) },
				perform: u.supervised("rollback"), complete: func(SpecContext) {}, // the check begins with all that is left
				check: func(ctx SpecContext) { base(ctx); same(ctx, u.lab, had, byName) }}
		}},
		{"giving maps other sizes", 24, func(ctx SpecContext) *procedure {
			base(ctx)
			size := func(n string) func(SpecContext) {
				return func(ctx SpecContext) { GinkgoHelper(); u.do(ctx, "apply", "--max-services", n) }
			}
			size("200")(ctx)
			had := take(u.lab)
			return &procedure{name: "resize", begin: func(ctx SpecContext) { size("100")(ctx); u.whole(ctx, true) },
				perform: u.supervised("apply", "--max-services", "200"), complete: size("200"),
				check: func(ctx SpecContext) { u.whole(ctx, true); same(ctx, u.lab, had, byName) }}
		}},
	}
	kill := func(make func(SpecContext) *procedure, flows func() []flow.Spec, part, of int) func(SpecContext) {
		return func(ctx SpecContext) {
			watchedWhile(ctx, u.lab, "upgrade", flows(), func(r *run) {
				p := make(ctx)
				p.words = words
				p.killEverywhere(ctx, r, part, of)
			})
		}
	}
	const sampled = 90 // one in so many steps, and all of them at night
	for _, p := range procedures {
		It(fmt.Sprintf("are killed while %s", p.what), Label("tier:pr"), limit, kill(p.make, everyFlow, 5, sampled))
		for part := range p.parts {
			It(fmt.Sprintf("are killed at every step of %s, part %d of %d", p.what, part+1, p.parts), Label("tier:nightly"), limit,
				kill(p.make, everyFlow, part, p.parts))
		}
	}

	// canary has a half of the new connections try the release that refuses some of them, until that is noticed.
	canary := []string{"apply", "--canary", "50%", "--hold", "4s", "--to"}
	withdrawn := func(ctx SpecContext) {
		GinkgoHelper()
		_, err := command(ctx, u.lab, node, u.args(append(canary, bad)...)...)
		Expect(err).To(MatchError(ContainSubstring("withdrawn at canary 50%: drops (refused_no_endpoint)")))
	}

	It("go back by themselves where only traffic tells that they are bad", Label("tier:pr"), limit, func(ctx SpecContext) {
		base(ctx)
		watchedWhile(ctx, u.lab, "canary", triedOn(), func(*run) {
			had := take(u.lab)
			a := beginAttempts(ctx, u.lab)
			withdrawn(ctx)
			sent, wrong := a.end()
			Expect(wrong).To(BeNumerically(">", 0), "of %d: nobody has tried it", sent)
			Expect(float64(wrong)).To(BeNumerically("<", 0.3*float64(sent)), "a sixth while it was tried")
			u.whole(ctx, true)
			same(ctx, u.lab, had, steady)
			last := u.history(ctx)
			Expect(last.Kind).To(Equal("withdraw"))
			Expect(last.Text).To(ContainSubstring("drops (refused_no_endpoint)"))
			expectAttempts(ctx, u.lab, BeZero())
			u.do(ctx, "apply", "--to", bad) // which nobody tried before
			expectAttempts(ctx, u.lab, BeNumerically(">", 0))
			u.do(ctx, "rollback")
			expectAttempts(ctx, u.lab, BeZero())
			base(ctx)
		})
	})

	trial := func(ctx SpecContext) *procedure {
		base(ctx)
		a := beginAttempts(ctx, u.lab)
		DeferCleanup(func() { a.end() })
		withdrawn(ctx)
		had := take(u.lab)
		return &procedure{name: "canary", begin: base, perform: u.supervised(append(canary, bad)...), complete: withdrawn,
			check: func(ctx SpecContext) { u.whole(ctx, true); same(ctx, u.lab, had, byName) }}
	}
	It("are killed while one is tried that is bad", Label("tier:pr"), limit, kill(trial, triedOn, 5, 2*sampled))
	const parts = 24
	for part := range parts {
		It(fmt.Sprintf("are killed at every step of trying one that is bad, part %d of %d", part+1, parts), Label("tier:nightly"),
			limit, kill(trial, triedOn, part, parts))
	}

	It("have one writer when eight begin at once", Label("tier:pr"), limit, func(ctx SpecContext) {
		base(ctx)
		watchedWhile(ctx, u.lab, "eight at once", everyFlow(), func(*run) {
			had := take(u.lab)
			for range 3 {
				results := make(chan error, 8)
				for i := range cap(results) {
					go func() {
						defer GinkgoRecover()
						args := u.args("apply")
						if i%2 == 0 {
							args = u.args("apply", "--to", other)
						}
						_, err := command(ctx, u.lab, node, args...)
						results <- err
					}()
				}
				won := 0
				for range cap(results) {
					if err := <-results; err == nil {
						won++
					} else {
						Expect(err).To(MatchError(ContainSubstring("is held by pid")))
					}
				}
				Expect(won).To(BeNumerically(">", 0))
				u.whole(ctx, false)
			}
			base(ctx)
			same(ctx, u.lab, had, byName)
		})
	})

	It("that are refused cost nothing", Label("tier:pr"), limit, func(ctx SpecContext) {
		base(ctx)
		had := take(u.lab)
		_, err := command(ctx, u.lab, node, u.args("apply", "--max-workloads", "1")...)
		Expect(err).To(MatchError(ContainSubstring("workloads")))
		_, err = command(ctx, u.lab, node, u.args("apply", "--max-services", "2")...)
		Expect(err).To(MatchError(ContainSubstring("service")))
		wrong := filepath.Join(filepath.Dir(other), "wrong")
		Expect(os.WriteFile(wrong, []byte("\x7fELF, honestly"), 0o600)).To(Succeed())
		_, err = command(ctx, u.lab, node, u.args("apply", "--to", wrong)...)
		Expect(err).To(MatchError(ContainSubstring("read object")))
		same(ctx, u.lab, had, steady)
	})
})

// generationNumbers differ between two goes, and so do the places where their digests are recorded.
var (
	generationNumbers = regexp.MustCompile(`gen/\d+`)
	recordedPlace     = regexp.MustCompile(`(super_change \(3,)\d+\)`)
)
