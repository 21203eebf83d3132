// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// The main thread keeps the namespaces that it has: a goroutine that entered another one there and ended would take the
// whole process along, because a main thread cannot be thrown away.
func init() { runtime.LockOSThread() }

func TestEndToEnd(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(10 * time.Second) // two busy cores; every wait here ends long before on an idle one
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "end to end")
}

// binaries are what `make e2e` built.
type binaries struct {
	evenkeel, client string
	plugins          string // directory of the reference CNI plugins
	// controls are builds of evenkeel that break one promise each, by name: a spec that passes on one proves nothing.
	controls map[string]string
}

// built is set once, before the first spec.
var built binaries

var _ = SynchronizedBeforeSuite(func() {
	if os.Geteuid() != 0 {
		skipOrFail("network namespaces, cgroups and BPF need root: run make e2e")
	}
	_, err := findBinaries()
	Expect(err).NotTo(HaveOccurred())
	aliveBefore, err = objectsAlive()
	Expect(err).NotTo(HaveOccurred())
}, func() {
	var err error
	built, err = findBinaries()
	Expect(err).NotTo(HaveOccurred())
})

// skipOrFail skips the suite on a developer's machine; where CI is set a suite that did not run is a failure.
func skipOrFail(why string) {
	if os.Getenv("CI") != "" {
		Fail(why)
	}
	Skip(why)
}

func findBinaries() (binaries, error) {
	dir := os.Getenv("EVENKEEL_BIN")
	if dir == "" {
		dir = "../bin"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, err
	}
	b := binaries{evenkeel: filepath.Join(dir, "evenkeel"), client: filepath.Join(dir, "e2e-client"), plugins: filepath.Join(dir, "cni")}
	b.controls = map[string]string{}
	want := []string{b.evenkeel, b.client, filepath.Join(dir, "evenkeel-cni"), filepath.Join(b.plugins, "bridge")}
	for _, name := range []string{"ignore_stamp", "miss_passes", "ignore_weights"} {
		b.controls[name] = filepath.Join(dir, "control", name, "evenkeel")
		want = append(want, b.controls[name])
	}
	for _, path := range want {
		if _, err := os.Stat(path); err != nil {
			return binaries{}, &missingError{path}
		}
	}
	return b, nil
}

// missingError is a binary that was not built.
type missingError struct{ path string }

func (e *missingError) Error() string { return e.path + " is missing: run make e2e" }

// Once all processes are done, on the first of them: what no lab's own check could know of.
var _ = SynchronizedAfterSuite(func() {}, func() {
	if aliveBefore != nil {
		expectNoOrphans()
	}
})
