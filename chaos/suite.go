// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim"
)

// binary is a program of this project.
func binary(name string) string { return filepath.Join(config.Binaries, name) }

// found is the result of the spec that runs.
var found *result.Result

// Each spec has a result from its beginning, so that one that fails shows what there is by then.
var _ = BeforeEach(func() {
	found = &result.Result{Version: result.Version, Dataplane: dataplaneOf(CurrentSpecReport().Labels()), Seed: seed()}
	AddReportEntry(result.Entry, found, ReportEntryVisibilityNever)
})

// dataplaneOf is what the labs of a spec run, which its labels say.
func dataplaneOf(labels []string) string {
	GinkgoHelper()
	for _, label := range labels {
		if dataplane, is := strings.CutPrefix(label, "dataplane:"); is {
			return dataplane
		}
	}
	Fail("label the spec with the data plane of its labs: dataplane:none, dataplane:evenkeel")
	return ""
}

// seed decides what the spec draws.
func seed() uint64 { return uint64(GinkgoRandomSeed()) }

// figure notes a number that a spec has measured or counted.
func figure(name string, value float64, unit string) {
	found.Figures = append(found.Figures, result.Figure{Name: name, Value: value, Unit: unit})
	AddReportEntry(name, fmt.Sprintf("%.5g %s", value, unit), ReportEntryVisibilityFailureOrVerbose)
}

// evidence notes a text that somebody will want to read.
func evidence(name, text string) {
	found.Evidence = append(found.Evidence, result.Evidence{Name: name, Text: text})
	AddReportEntry(name, text, ReportEntryVisibilityFailureOrVerbose)
}

var _ = BeforeSuite(func() {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			Fail("network namespaces and cgroups need root")
		}
		Skip("network namespaces and cgroups need root: run make chaos")
	}
	for _, path := range []string{evenkeel(), instrument()} {
		Expect(path).To(BeAnExistingFile(), "run make chaos")
	}
})

// labs counts those of this process. A name holds the pid, so labs of parallel processes share nothing.
var labs atomic.Int32

// newLab makes a lab of a topology's spec, with the Kubernetes documents that may follow it. It goes when the container
// or spec that made it ends.
func newLab(ctx SpecContext, spec string) *netsim.Lab {
	GinkgoHelper()
	return newLabOf(ctx, evenkeel(), spec)
}

// newLabOf is newLab with agents and commands of another build.
func newLabOf(ctx SpecContext, build, spec string) *netsim.Lab {
	GinkgoHelper()
	name := labName()
	text := "apiVersion: netsim.evenkeel.io/v1\nkind: Topology\nmetadata: {name: " + name + "}\nspec:" + spec
	topology, err := netsim.Parse(strings.NewReader(text), name)
	Expect(err).NotTo(HaveOccurred())
	return upLab(ctx, build, topology)
}

// labName is one that no other lab of the machine has.
func labName() string { return fmt.Sprintf("chaos-%d-%d", os.Getpid(), labs.Add(1)) }

// upLab makes the lab of a topology. It goes when the container or spec that made it ends.
func upLab(ctx SpecContext, build string, topology *netsim.Topology) *netsim.Lab {
	GinkgoHelper()
	lab, err := netsim.Up(ctx, topology, netsim.Options{Binary: build, Ztunnel: config.Ztunnel})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) { down(ctx, lab) })
	return lab
}
