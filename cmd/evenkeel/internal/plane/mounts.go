// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// CgroupRoot is where the unified hierarchy of control groups is mounted: /sys/fs/cgroup, or below it where version 1
// is mounted as well.
func CgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	defer f.Close()
	root, err := parseCgroupRoot(f)
	if err != nil {
		return "", fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	if root == "" {
		return "", errors.New("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup, or name one with " +
			"--cgroup")
	}
	return root, nil
}

// parseCgroupRoot finds the first cgroup2 mount in text of the form of proc_pid_mountinfo(5), "" if there is none:
//
//	36 35 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
//
// The mount point is the fifth field, with white space and backslashes in octal; the type follows a lone dash.
func parseCgroupRoot(text io.Reader) (string, error) {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		for i := 6; i+1 < len(f); i++ {
			if f[i] != "-" {
				continue
			}
			if f[i+1] == "cgroup2" {
				return unescape.Replace(f[4]), nil
			}
			break
		}
	}
	return "", lines.Err()
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
