// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"os/exec"
	"testing"
)

// What a watched call costs: processes that make 1,000 directories, in turns with and without a supervisor.
func BenchmarkCall(b *testing.B) {
	needRoot(b)
	const calls = "1000"
	run := func(b *testing.B, decide Decide) {
		for b.Loop() {
			if status := supervise(b, decide, "mkdir", b.TempDir(), "1", calls).end(b); !status.Exited() {
				b.Fatalf("status %#x", status)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "us/call")
	}
	b.Run("decided", func(b *testing.B) { run(b, func(Call, When) Action { return Go() }) })
	b.Run("watched", func(b *testing.B) { run(b, nil) })
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/proc/self/exe", "mkdir", b.TempDir(), "1", calls).Run(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "us/call")
	})
}
