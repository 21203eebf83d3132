// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// anotherRelease writes the release of a build once more, as another: with a constant that no program reads.
func anotherRelease(ctx SpecContext, lab *netsim.Lab, node string) string {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "evenkeel-release-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	path := filepath.Join(dir, "another")
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
	config[7] ^= 0x80 // of the controls, one that does not exist
	variables["config"], release["label"] = base64.StdEncoding.EncodeToString(config), "another"
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
	var other string
	words := func(text string) (string, error) {
		text, err := supervisable(u.lab, node).Words(text)
		text = generationNumbers.ReplaceAllString(strings.ReplaceAll(text, other, "{other}"), "gen/#")
		return recordedPlace.ReplaceAllString(text, "$1#)"), err
	}
	BeforeAll(func(ctx SpecContext) {
		u = upgrader{newMeshLab(ctx, evenkeel()), node}
		Expect(u.lab.RestartAgent(ctx, node)).To(Succeed())
		other = anotherRelease(ctx, u.lab, node)
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
	kill := func(make func(SpecContext) *procedure, part, of int) func(SpecContext) {
		return func(ctx SpecContext) {
			watchedWhile(ctx, u.lab, "upgrade", everyFlow(), func(r *run) {
				p := make(ctx)
				p.words = words
				p.killEverywhere(ctx, r, part, of)
			})
		}
	}
	for _, p := range procedures {
		const sampled = 90 // one in so many steps, and all of them at night
		It(fmt.Sprintf("are killed while %s", p.what), Label("tier:pr"), limit, kill(p.make, 5, sampled))
		for part := range p.parts {
			It(fmt.Sprintf("are killed at every step of %s, part %d of %d", p.what, part+1, p.parts), Label("tier:nightly"), limit,
				kill(p.make, part, p.parts))
		}
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
