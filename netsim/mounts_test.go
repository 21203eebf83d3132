// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"strings"
	"testing"
)

func TestCgroup2IsFound(t *testing.T) {
	for what, c := range map[string]struct{ text, want string }{
		"alone": {"25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup"},
		"beside version 1": {"10 3 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
			"11 10 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
			"20 10 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		"part of it before the whole": {"9 1 0:38 /some/group /mnt rw - cgroup2 cgroup2 rw\n" +
			"8 1 0:38 / /mnt/with\\040space rw master:1 shared:2 - cgroup2 cgroup2 rw\n", "/mnt/with space"},
		"version 1 only": {"11 10 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", ""},
	} {
		mounts, err := parseMounts(strings.NewReader(c.text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := cgroup2Among(mounts)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}
