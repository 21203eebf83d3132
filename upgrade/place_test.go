// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBed(t) // on a BPF file system
	tests := []struct{ dir, want string }{
		{filepath.Join(t.TempDir(), "evenkeel"), "below one that is mounted, such as /sys/fs/bpf"},
		{"/tmp", "below one that is mounted, such as /sys/fs/bpf"},
		{file, "below one that is mounted"},
		{"/sys/fs/none/evenkeel", "/sys/fs/none is not there"},
		{filepath.Join(file, "evenkeel"), file},
		{"/sys/fs/bpf/even.keel", "dot"},
		{"/sys/fs/bpf", "below it"},
		{b.dir, ""},
	}
	for _, test := range tests {
		err := CheckPlace(test.dir)
		switch {
		case test.want == "" && err == nil:
		case err == nil || test.want == "" || !strings.Contains(err.Error(), test.want):
			t.Errorf("%s: %v, want %q", test.dir, err, test.want)
		case strings.Contains(err.Error(), "mount -t"):
			t.Errorf("%s: it tells to mount something: %v", test.dir, err)
		}
	}
	for what, err := range map[string]error{
		"uninstall": Uninstall(t.Context(), Options{Dir: "/tmp"}), "inspect": second(Inspect("/tmp")),
		"writer": second(OpenWriter(t.Context(), "/tmp")),
	} {
		if err == nil || !strings.Contains(err.Error(), "pin directory /tmp") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
