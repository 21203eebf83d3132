// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// release is a build of the agent, the commands and the plugin: of a version of upgrade/releases.yaml, or of this tree.
type release struct{ version, dir string }

const thisTree = "this"

func (r release) evenkeel() string { return filepath.Join(r.dir, "evenkeel") }

// releases are those that were built from history, oldest first, and this tree.
func releases() []release {
	GinkgoHelper()
	bin := filepath.Dir(built.evenkeel)
	found, err := filepath.Glob(filepath.Join(bin, "releases", "v*"))
	Expect(err).NotTo(HaveOccurred())
	Expect(found).NotTo(BeEmpty(), "upgrade/releases.yaml has a release, and make e2e builds it")
	slices.Sort(found)
	var all []release
	for _, dir := range found {
		all = append(all, release{filepath.Base(dir), dir})
	}
	return append(all, release{thisTree, bin})
}

// everyRelease is what releases.yaml lists, and this tree.
func everyRelease() []release {
	GinkgoHelper()
	text, err := os.ReadFile("../upgrade/releases.yaml")
	Expect(err).NotTo(HaveOccurred())
	var want, have []string
	for line := range strings.Lines(string(text)) {
		if version, _, is := strings.Cut(line, ":"); is && strings.HasPrefix(version, "v") {
			want = append(want, version)
		}
	}
	all := releases()
	for _, r := range all {
		have = append(have, r.version)
	}
	Expect(have).To(Equal(append(want, thisTree)), "releases that were built: upgrade/releases.sh builds them all")
	return all
}

// Releases that know no limit for pods but the size of the maps take those for the most pods if they are told so. Where
// the release before recorded its limit as the size, that has to be told first, too.
const (
	roomForAll = "--max-workloads=8192"
	inOneStep  = "with `" + roomForAll + "`"
	inTwoSteps = "both with `" + roomForAll + "`"
)

// Real agents, commands and plugins of the releases that there were, each on what every other has left, under flows.
var _ = Describe("Releases", func() {
	const node, vip4, vip6, sticky = "a", "10.96.0.10", "fd00:96::10", "10.96.0.20"

	// installed is a lab that a release has made and serves.
	installed := func(ctx SpecContext, by release) *lab {
		GinkgoHelper()
		l := newLabOf(ctx, by.evenkeel(), byLabel(GinkgoT().TempDir())+`
  - {name: client, node: a, enrol: true, labels: {evenkeel.io/mesh: enabled}}
  - {name: spare, node: a}
  - {name: web, node: a, count: 4, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", vip4, vip6),
			udpService("sticky", sticky, "selector: {app: web}", "sessionAffinity: ClientIP"))+meshedNamespaces)
		l.expectPorts(ctx, node, 7)
		expectServed(ctx, l.pod("client"), at(vip4, 7))
		return l
	}
	// of is the same lab with commands of another release, which is what its agents are of when they start again.
	of := func(l *lab, r release) *lab {
		l.UseAgent(r.evenkeel())
		return &lab{l.Lab, l.name, r.evenkeel()}
	}
	// chosen is the one endpoint that affinity gives the client.
	chosen := func(ctx SpecContext, l *lab) string {
		GinkgoHelper()
		got := draw(ctx, l.pod("client"), 20, at(sticky, 7))
		Expect(got.endpoints).To(HaveLen(1), "%+v", got)
		for endpoint := range got.endpoints {
			return endpoint
		}
		return ""
	}
	// serves waits until a release's agent says that its own programs serve.
	serves := func(ctx SpecContext, l *lab) {
		GinkgoHelper()
		Eventually(ctx, func() statusOf { return l.status(ctx, node) }).
			Should(And(HaveField("Healthy", BeTrue()), HaveField("Differs", BeFalse())), "%s serves its own programs", l.binary)
	}
	// jump goes from one release to another while flows go on, and says what that needed.
	jump := func(ctx SpecContext, l *lab, from, to release, running flows) string {
		GinkgoHelper()
		affine := chosen(ctx, l)
		Expect(l.stopAgent(ctx, node, syscall.SIGTERM)).To(Succeed())
		running.advance(ctx, 10)
		before, err := pinned(l.pins(node))
		Expect(err).NotTo(HaveOccurred())
		that, needed := of(l, to), "yes"
		if err := that.StartAgent(ctx, node); err != nil {
			Expect(err.Error()).To(ContainSubstring("workloads"), "what is refused is named")
			after, err := pinned(l.pins(node))
			Expect(err).NotTo(HaveOccurred())
			Expect(after).To(Equal(before), "a refusal touches nothing")
			needed = inOneStep
			if that.StartAgent(ctx, node, roomForAll) != nil {
				had := of(l, from)
				had.startAgent(ctx, node, roomForAll)
				serves(ctx, had)
				Expect(had.stopAgent(ctx, node, syscall.SIGTERM)).To(Succeed())
				of(l, to).startAgent(ctx, node, roomForAll)
				needed = inTwoSteps
			}
		}
		serves(ctx, that)
		running.advance(ctx, 10)
		Expect(chosen(ctx, l)).To(Equal(affine), "affinity of before")
		return needed
	}
	// walk has every release follow every other, beginning at the one that runs.
	walk := func(ctx SpecContext, l *lab, all []release, saw skew) {
		GinkgoHelper()
		first := all[0].version
		running := hold(ctx, l.pod("client"), append(everyKind(vip4), everyKind(vip6)...)...)
		for i, from := range all {
			for _, to := range all[i+1:] {
				By(fmt.Sprintf("installed by %s: %s to %s and back", first, from.version, to.version))
				saw.note("agent", first, to.version, jump(ctx, l, from, to, running))
				saw.note("agent", first, from.version, jump(ctx, l, to, from, running))
			}
			if i+2 < len(all) {
				jump(ctx, l, from, all[i+1], running)
			}
		}
		running.expectUnharmed()
	}
	// beside has commands and the plugin of other releases work on what one has pinned and serves.
	beside := func(ctx SpecContext, l *lab, by release, all []release, saw skew) {
		GinkgoHelper()
		for _, r := range all {
			By(fmt.Sprintf("commands and plugin of %s beside the agent of %s", r.version, by.version))
			saw.note("commands", by.version, r.version, commandsWork(ctx, &lab{l.Lab, l.name, r.evenkeel()}, node))
			saw.note("plugin", by.version, r.version, pluginWorks(ctx, l, node, r.dir))
		}
	}
	matrix := func(ctx SpecContext, all []release) skew {
		GinkgoHelper()
		saw := skew{}
		for i, by := range all {
			l := installed(ctx, by)
			shown := hold(ctx, l.pod("client"), "tcp="+at(vip4, 7))
			beside(ctx, l, by, all, saw)
			shown.expectUnharmed()
			walk(ctx, l, append([]release{by}, slices.Delete(slices.Clone(all), i, i+1)...), saw)
		}
		return saw
	}

	It("follow each other up and down: the oldest and this one", func(ctx SpecContext) {
		all := releases()
		saw := matrix(ctx, []release{all[0], all[len(all)-1]})
		said, err := readSkew()
		Expect(err).NotTo(HaveOccurred())
		for cell, outcome := range saw {
			Expect(said).To(HaveKeyWithValue(cell, outcome), "the table in %s, which tier:nightly compares whole", upgradeDocument)
		}
	}, SpecTimeout(2*time.Minute))

	It("follow each other up and down: every one", Label("tier:nightly"), func(ctx SpecContext) {
		all := everyRelease()
		saw := matrix(ctx, all)
		if os.Getenv("EVENKEEL_WRITE_DOCS") != "" {
			Expect(saw.write(all)).To(Succeed())
		}
		Expect(readSkew()).To(Equal(saw), "the table in %s; EVENKEEL_WRITE_DOCS=1 writes it", upgradeDocument)
	}, SpecTimeout(8*time.Minute))

	It("are caught where one follows another by a wipe", Label("control"), func(ctx SpecContext) {
		all := releases()
		l, running := installed(ctx, all[0]), flows{}
		failures := InterceptGomegaFailures(func() {
			running = hold(ctx, l.pod("client"), "-timeout=300ms", "tcp-new="+at(vip4, 7))
			Expect(l.stopAgent(ctx, node, syscall.SIGTERM)).To(Succeed())
			Expect(l.evenkeel(ctx, node, "uninstall", "--yes").code).To(BeZero())
			running.advance(ctx, 1)
			of(l, all[len(all)-1]).startAgent(ctx, node)
			running.expectUnharmed()
		})
		Expect(failures).To(ContainElement(ContainSubstring("failed of")), "the check cannot fail")
	})
})
