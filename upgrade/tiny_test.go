// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade -output-suffix _test -type tiny_rules -type tiny_total -type tiny_hook tiny testdata/tiny.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade -output-suffix _test tinyReordered testdata/tiny.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DREORDERED
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade -output-suffix _test tinyOther testdata/tiny.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DOTHER
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade -output-suffix _test tinyExtra testdata/tiny.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -DEXTRA
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade -output-suffix _test tinyState1 testdata/tiny.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -DSCHEMA=1
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade -output-suffix _test tinyState2 testdata/tiny.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -DSCHEMA=2

func tinyPlane(object []byte) DataPlane {
	return DataPlane{
		Object: object,
		Hooks: []Hook{
			{"connect4", "enter_connect4", "tiny_connect4", Cgroup, ebpf.AttachCGroupInet4Connect, ""},
			{"peername4", "enter_peername4", "tiny_peername4", Cgroup, ebpf.AttachCgroupInet4GetPeername, ""},
			{"msg", "enter_msg", "tiny_msg", Sockhash, ebpf.AttachSkMsgVerdict, "tiny_sockets"},
			{"lookup", "enter_lookup", "tiny_lookup", Netns, ebpf.AttachSkLookup, ""},
			{"tcx", "enter_tcx", "tiny_tcx", Tcx, ebpf.AttachTCXIngress, ""},
		},
		Frozen:    []string{"tiny_stamps", "tiny_sockets", "tiny_notes", "tiny_totals"},
		Private:   []string{"tiny_counts"},
		Programs:  []string{"tiny_rule"},
		Configure: configureTiny(false),
		Number:    "config.generation",
		Stamps:    "tiny_stamps",
	}
}

func configureTiny(ignoreStamp bool) func(*ebpf.CollectionSpec) error {
	return func(spec *ebpf.CollectionSpec) error {
		config := struct{ Generation, IgnoreStamp uint16 }{}
		if ignoreStamp {
			config.IgnoreStamp = 1
		}
		return spec.Variables["config"].Set(config)
	}
}

// bed is a BPF file system and a cgroup of a test's own.
type bed struct {
	dir    string // of a tree
	cgroup string
}

func newBed(t *testing.T) bed {
	t.Helper()
	if os.Geteuid() != 0 {
		privilege(t, errors.New("not root"))
	}
	mount := t.TempDir()
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		privilege(t, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", mount, err)
		}
	})
	b := bed{dir: filepath.Join(mount, "evenkeel"), cgroup: newCgroup(t, "")}
	return b
}

// newCgroup makes a cgroup that is removed at the end of the test, if it has not been.
func newCgroup(t *testing.T, path string) string {
	t.Helper()
	if path == "" {
		root, err := cgroupMount()
		if err != nil {
			privilege(t, err)
		}
		name := strings.Map(func(r rune) rune {
			if r == '/' || r == ' ' {
				return '-'
			}
			return r
		}, t.Name())
		path = filepath.Join(root, fmt.Sprintf("evenkeel-%d-%s", os.Getpid(), name))
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		privilege(t, err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("remove cgroup: %v", err)
		}
	})
	return path
}

// privilege skips a test that cannot run here, but not in CI, where it has to.
func privilege(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("this test needs root, bpffs and cgroup2: %v", err)
	}
	t.Skipf("needs root, bpffs and cgroup2: %v", err)
}

func (b bed) options() Options { return Options{Dir: b.dir, Cgroup: b.cgroup} }

func (b bed) open(t *testing.T, object []byte) *Store {
	t.Helper()
	s, err := Open(t.Context(), tinyPlane(object), b.options())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (b bed) inspect(t *testing.T) *State {
	t.Helper()
	state, err := Inspect(b.dir)
	if err != nil {
		t.Fatalf("inspect: %v", err)
	}
	return state
}
