// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"os"
	"testing"
)

// needRoot skips a test where it cannot do what it does, and fails it where CI says that it must run.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("marks and network namespaces need root")
	}
	t.Skip("marks and network namespaces need root: run make test")
}
