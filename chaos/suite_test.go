// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"os"
	"runtime"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// A goroutine that enters a namespace on the main thread would take the whole process along.
func init() { runtime.LockOSThread() }

func TestChaos(t *testing.T) {
	RegisterFailHandler(Fail)
	dir := os.Getenv("EVENKEEL_BIN")
	if dir == "" {
		dir = "../bin"
	}
	if err := Configure(Config{Binaries: dir}); err != nil {
		t.Fatal(err)
	}
	RunSpecs(t, "chaos")
}
