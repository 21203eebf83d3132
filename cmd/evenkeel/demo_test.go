// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A demo that cannot be had says why and what to do; one that can is run by the suites.
func TestDemoSaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	if err := turnIntoDemo(filepath.Join(dir, "evenkeel-chaos"), nil); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Error(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := turnIntoDemo(plain, nil); err == nil || !strings.Contains(err.Error(), plain) {
		t.Error(err)
	}
}
