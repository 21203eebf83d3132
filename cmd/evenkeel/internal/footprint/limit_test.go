// SPDX-License-Identifier: Apache-2.0

package footprint

import (
	"io/fs"
	"testing"
)

func TestAllowed(t *testing.T) {
	const (
		unified = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		inside  = "30 20 0:26 /kubepods/a /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
		hybrid  = "31 20 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
			"32 20 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"33 20 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	)
	for name, c := range map[string]struct {
		groups, mounts string
		files          map[string]string
		want           uint64
	}{
		"of its own": {"0::/system.slice/evenkeel.service\n", unified,
			map[string]string{"/sys/fs/cgroup/system.slice/evenkeel.service/memory.max": "25165824\n"}, 24 << 20},
		"of one above": {"0::/a/b\n", unified,
			map[string]string{"/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/memory.max": "16777216\n"}, 16 << 20},
		"the least": {"0::/a/b\n", unified,
			map[string]string{"/sys/fs/cgroup/a/b/memory.max": "4096\n", "/sys/fs/cgroup/a/memory.max": "16777216\n"}, 4096},
		"in a container": {"0::/\n", unified, map[string]string{"/sys/fs/cgroup/memory.max": "8192\n"}, 8192},
		"below the mount": {"0::/kubepods/a/b\n", inside,
			map[string]string{"/sys/fs/cgroup/b/memory.max": "8192\n"}, 8192},
		"elsewhere": {"0::/other\n", inside, map[string]string{"/sys/fs/cgroup/memory.max": "8192\n"}, 0},
		"version 1": {"4:memory:/x\n1:cpu:/y\n0::/\n", hybrid,
			map[string]string{"/sys/fs/cgroup/memory/x/memory.limit_in_bytes": "12582912\n"}, 12 << 20},
		"version 1, none": {"4:memory:/x\n0::/\n", hybrid,
			map[string]string{"/sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"none":    {"0::/a\n", unified, map[string]string{"/sys/fs/cgroup/a/memory.max": "max\n"}, 0},
		"nothing": {"", "", nil, 0},
		"garbage": {"0:/\n:::\n", "x\n - \n", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(path string) ([]byte, error) {
				if text, ok := c.files[path]; ok {
					return []byte(text), nil
				}
				return nil, fs.ErrNotExist
			}
			if got := allowed(c.groups, c.mounts, read); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
