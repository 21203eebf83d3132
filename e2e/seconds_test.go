// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
)

// Each file's share of the time, summed over the parallel processes: what to look at when the suite becomes slow.
var _ = ReportAfterSuite("seconds per file", func(report Report) {
	seconds, specs := map[string]time.Duration{}, map[string]int{}
	for _, spec := range report.SpecReports {
		file := filepath.Base(spec.LeafNodeLocation.FileName)
		if spec.RunTime == 0 || spec.LeafNodeText == "seconds per file" {
			continue
		}
		seconds[file] += spec.RunTime
		specs[file]++
	}
	files := slices.SortedFunc(maps.Keys(seconds), func(a, b string) int { return cmp.Compare(seconds[b], seconds[a]) })
	fmt.Fprintf(os.Stderr, "\n%8s %6s  file (seed %d)\n", "seconds", "specs", report.SuiteConfig.RandomSeed)
	for _, file := range files {
		fmt.Fprintf(os.Stderr, "%8.1f %6d  %s\n", seconds[file].Seconds(), specs[file], file)
	}
})
