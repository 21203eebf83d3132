// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Oldest kernel: the first that has tcx links and bpf_sock_destroy, both used for every pod.
const needMajor, needMinor = 6, 6

const nothingWorks = "nothing works"

// machine are the checks of the kernel and of what is mounted.
func (p *patient) machine(kernel string) []check {
	return []check{
		{"kernel release", true, "tcx links came with 6.6",
			func() (string, error) { return kernel, checkRelease(kernel) }},
		{"bpf system call", true, nothingWorks, tryBPF},
		{"kernel BTF", true, "programs cannot be fitted to this kernel; build it with CONFIG_DEBUG_INFO_BTF", tryBTF},
		{"cgroup2", true, "there is nothing to attach the socket hooks to", p.findCgroup},
		{"BPF file system", true, "programs and maps would end with the agent", tryMount},
		{"pin directory", false, "the agent does not start before that is done", func() (string, error) {
			return "can be made in " + filepath.Dir(p.Dir), upgrade.CheckPlace(p.Dir)
		}},
		{"network namespace cookies", true, "pods cannot be told from each other", tryCookie},
		{"frozen maps", true, "any process of root could change which generation serves by mistake", tryFreeze},
		{"map of maps", true, "the agent cannot wait until the last reader of old state is done", tryGrace},
	}
}

func checkRelease(kernel string) error {
	var major, minor int
	if _, err := fmt.Sscanf(kernel, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("release %q: cannot read its number", kernel)
	}
	if major < needMajor || major == needMajor && minor < needMinor {
		return fmt.Errorf("%s: %d.%d or newer is needed", kernel, needMajor, needMinor)
	}
	return nil
}

func tryBPF() (string, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if errors.Is(err, unix.EPERM) {
		return "", fmt.Errorf("%w: in a container use --privileged", unix.EPERM)
	}
	if err != nil {
		return "", err
	}
	return "permitted", m.Close()
}

func tryBTF() (string, error) {
	_, err := btf.LoadKernelSpec()
	return "present", err
}

func (p *patient) findCgroup() (string, error) {
	if p.Cgroup == "" {
		var err error
		if p.Cgroup, err = plane.CgroupRoot(); err != nil {
			return "", err
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p.Cgroup, &fs); err != nil {
		return "", fmt.Errorf("look at %s: %w", p.Cgroup, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return "", fmt.Errorf("%s is not on a cgroup2 file system", p.Cgroup)
	}
	return p.Cgroup, nil
}

// tryMount makes a BPF file system that is mounted nowhere and ends at once (Linux 5.2).
func tryMount() (string, error) {
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return "", err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	if err := unix.Close(mount); err != nil {
		return "", err
	}
	var there unix.Statfs_t
	if unix.Statfs("/sys/fs/bpf", &there) == nil && there.Type == unix.BPF_FS_MAGIC {
		return "mounted at /sys/fs/bpf", nil
	}
	return "can be mounted: mount -t bpf bpf /sys/fs/bpf", nil
}

func tryCookie() (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return "", fmt.Errorf("read SO_NETNS_COOKIE: %w", err)
	}
	return fmt.Sprintf("this one is %d", cookie), nil
}

func tryFreeze() (string, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		return "", err
	}
	defer m.Close()
	if err := m.Freeze(); err != nil {
		return "", err
	}
	if err := m.Put(uint32(0), uint32(1)); err == nil {
		return "", errors.New("a frozen map could be written")
	}
	return "kept from writes", nil
}

func tryGrace() (string, error) {
	spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(spec)
	if err != nil {
		return "", err
	}
	defer inner.Close()
	outer, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: spec,
	})
	if err != nil {
		return "", err
	}
	defer outer.Close()
	return "waits for readers", outer.Put(uint32(0), inner)
}
