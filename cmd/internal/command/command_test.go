// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestRemedy: who is not root and may not do something is told to be.
func TestRemedy(t *testing.T) {
	for _, errno := range []error{syscall.EPERM, syscall.EACCES} {
		err := fmt.Errorf("look at it: %w", errno)
		if got := remedy(err, 1000); !strings.Contains(got, "sudo") {
			t.Errorf("%v: %q", err, got)
		}
		if got := remedy(err, 0); got != "" {
			t.Errorf("%v, as root: %q", err, got)
		}
	}
	if got := remedy(errors.New("permission to land"), 1000); got != "" {
		t.Errorf("another error: %q", got)
	}
}
