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

	"github.com/evenkeel/evenkeel/netsim"
)

// Binaries is the directory of evenkeel and evenkeel-chaos. Whoever runs the suites sets it before.
var Binaries = "../bin"

func binary(name string) string {
	GinkgoHelper()
	path, err := filepath.Abs(filepath.Join(Binaries, name))
	Expect(err).NotTo(HaveOccurred())
	return path
}

var _ = BeforeSuite(func() {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			Fail("network namespaces and cgroups need root")
		}
		Skip("network namespaces and cgroups need root: run make chaos")
	}
	for _, name := range []string{"evenkeel", "evenkeel-chaos"} {
		Expect(binary(name)).To(BeAnExistingFile(), "run make chaos")
	}
})

// labs counts those of this process. A name holds the pid, so labs of parallel processes share nothing.
var labs atomic.Int32

// newLab makes a lab of a topology's spec, with the Kubernetes documents that may follow it. It goes when the container
// or spec that made it ends.
func newLab(ctx SpecContext, spec string) *netsim.Lab {
	GinkgoHelper()
	return newLabOf(ctx, binary("evenkeel"), spec)
}

// newLabOf is newLab with agents and commands of another build.
func newLabOf(ctx SpecContext, build, spec string) *netsim.Lab {
	GinkgoHelper()
	name := fmt.Sprintf("chaos-%d-%d", os.Getpid(), labs.Add(1))
	text := "apiVersion: netsim.evenkeel.io/v1\nkind: Topology\nmetadata: {name: " + name + "}\nspec:" + spec
	topology, err := netsim.Parse(strings.NewReader(text), name)
	Expect(err).NotTo(HaveOccurred())
	lab, err := netsim.Up(ctx, topology, netsim.Options{Binary: build})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) { Expect(lab.Down(ctx)).To(Succeed()) })
	return lab
}
