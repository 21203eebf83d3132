// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// pathCall is a watched system call that takes paths.
type pathCall struct {
	name  string
	paths []pathArgument
}

// pathArgument is where a call has a path: the number of its argument and of that with the directory it starts from.
type pathArgument struct{ path, dir int }

const (
	noDir    = -1 // it starts from the working directory
	noLookup = -2 // it is text, as the target of a symbolic link is
)

func here(path int) pathArgument     { return pathArgument{path, noDir} }
func verbatim(path int) pathArgument { return pathArgument{path, noLookup} }

// pathCalls are the watched calls that take paths, by number.
var pathCalls = func() map[uint64]pathCall {
	all := map[uint64]pathCall{
		unix.SYS_RENAMEAT:      {"renameat", []pathArgument{{1, 0}, {3, 2}}},
		unix.SYS_RENAMEAT2:     {"renameat2", []pathArgument{{1, 0}, {3, 2}}},
		unix.SYS_LINKAT:        {"linkat", []pathArgument{{1, 0}, {3, 2}}},
		unix.SYS_UNLINKAT:      {"unlinkat", []pathArgument{{1, 0}}},
		unix.SYS_SYMLINKAT:     {"symlinkat", []pathArgument{verbatim(0), {2, 1}}},
		unix.SYS_MKDIRAT:       {"mkdirat", []pathArgument{{1, 0}}},
		unix.SYS_MOUNT:         {"mount", []pathArgument{verbatim(0), here(1)}},
		unix.SYS_UMOUNT2:       {"umount2", []pathArgument{here(0)}},
		unix.SYS_MOVE_MOUNT:    {"move_mount", []pathArgument{{1, 0}, {3, 2}}},
		unix.SYS_PIVOT_ROOT:    {"pivot_root", []pathArgument{here(0), here(1)}},
		unix.SYS_TRUNCATE:      {"truncate", []pathArgument{here(0)}},
		unix.SYS_MOUNT_SETATTR: {"mount_setattr", []pathArgument{{1, 0}}},
	}
	maps.Copy(all, oldCalls)
	return all
}()

// tracee is where the arguments of a stopped thread are read from.
type tracee struct {
	tid   int
	pidfd int
}

// describe names a call that a thread is about to make. What cannot be read is shown as "?": the call will fail.
func (t tracee) describe(number uint64, args [6]uint64) (name, argument string) {
	if number == unix.SYS_BPF {
		return "bpf " + effects[uint32(args[0])], t.describeBPF(uint32(args[0]), args[1], args[2])
	}
	call := pathCalls[number]
	words := make([]string, 0, len(call.paths))
	for _, p := range call.paths {
		words = append(words, t.path(p, args))
	}
	return call.name, strings.Join(words, " ")
}

func (t tracee) path(p pathArgument, args [6]uint64) string {
	text, err := t.text(args[p.path])
	if err != nil {
		return "?"
	}
	if p.dir == noLookup || filepath.IsAbs(text) {
		return text
	}
	link := fmt.Sprintf("/proc/%d/cwd", t.tid)
	if p.dir >= 0 && int32(args[p.dir]) != unix.AT_FDCWD {
		link = fmt.Sprintf("/proc/%d/fd/%d", t.tid, int32(args[p.dir]))
	}
	dir, err := os.Readlink(link)
	if err != nil {
		return "?/" + text
	}
	return filepath.Join(dir, text)
}

// text reads a string that ends with a zero byte, page by page: what comes after the last one may not be there.
func (t tracee) text(address uint64) (string, error) {
	const page = 4096
	var all []byte
	for len(all) < unix.PathMax {
		part, err := t.memory(address, int(page-address%page))
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(part, 0); end >= 0 {
			return string(append(all, part[:end]...)), nil
		}
		all = append(all, part...)
		address += uint64(len(part))
	}
	return "", unix.ENAMETOOLONG
}

func (t tracee) memory(address uint64, size int) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	buffer := make([]byte, size)
	n, err := unix.ProcessVMReadv(t.tid, []unix.Iovec{{Base: &buffer[0], Len: uint64(size)}},
		[]unix.RemoteIovec{{Base: uintptr(address), Len: size}}, 0)
	if err != nil {
		return nil, fmt.Errorf("read memory of thread %d: %w", t.tid, err)
	}
	return buffer[:n], nil
}

// attributes is a union bpf_attr (linux/bpf.h), padded with zeros as the kernel does.
type attributes []byte

func (a attributes) u32(offset int) uint32 { return binary.NativeEndian.Uint32(a[offset:]) }
func (a attributes) u64(offset int) uint64 { return binary.NativeEndian.Uint64(a[offset:]) }
func (a attributes) name(offset int) string {
	text, _, _ := bytes.Cut(a[offset:offset+unix.BPF_OBJ_NAME_LEN], []byte{0})
	return string(text)
}

func (t tracee) describeBPF(command uint32, address, size uint64) string {
	const most = 256 // more than any field that is read below
	read, err := t.memory(address, int(min(size, most)))
	if err != nil {
		return "?"
	}
	a := append(attributes(read), make([]byte, most)...)
	switch command {
	case unix.BPF_MAP_CREATE:
		return named(ebpf.MapType(a.u32(0)).String(), a.name(28))
	case unix.BPF_PROG_LOAD:
		return named(ebpf.ProgramType(a.u32(0)).String(), a.name(48))
	case unix.BPF_OBJ_PIN:
		path, err := t.text(a.u64(0))
		if err != nil {
			path = "?"
		}
		return path
	case unix.BPF_LINK_CREATE:
		return named(ebpf.AttachType(a.u32(8)).String(), t.object(a.u32(0)))
	case unix.BPF_PROG_ATTACH, unix.BPF_PROG_DETACH:
		return named(ebpf.AttachType(a.u32(8)).String(), t.object(a.u32(4)))
	case unix.BPF_LINK_UPDATE:
		return named(t.object(a.u32(0)), t.object(a.u32(4)))
	case unix.BPF_PROG_TEST_RUN:
		return named(t.object(a.u32(0)), t.context(a))
	case unix.BPF_MAP_UPDATE_BATCH, unix.BPF_MAP_DELETE_BATCH, unix.BPF_MAP_LOOKUP_AND_DELETE_BATCH:
		return t.object(a.u32(36))
	case unix.BPF_RAW_TRACEPOINT_OPEN:
		return t.object(a.u32(8))
	}
	return t.object(a.u32(0)) // a descriptor is the first field
}

// context shows the first two 32-bit words of what a program is run with: an operation and what it is about, where the
// program has operations. Large ones are something else: addresses, packets.
func (t tracee) context(a attributes) string {
	const ctxSizeIn, ctxIn = 40, 48
	if a.u32(ctxSizeIn) < 8 {
		return ""
	}
	ctx, err := t.memory(a.u64(ctxIn), 8)
	if err != nil || len(ctx) < 8 {
		return "?"
	}
	const large = 4096
	operation, subject := binary.NativeEndian.Uint32(ctx), binary.NativeEndian.Uint32(ctx[4:])
	if operation >= large || subject >= large {
		return ""
	}
	return fmt.Sprintf("(%d,%d)", operation, subject)
}

func named(kind, name string) string { return strings.TrimSpace(kind + " " + name) }

// object names the map, program or link behind a descriptor of the process.
func (t tracee) object(number uint32) string {
	kind, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.tid, number))
	if err != nil {
		return "?"
	}
	kind = strings.TrimPrefix(strings.Trim(kind, "[]"), "anon_inode:")
	kind = strings.Trim(kind, "[]")
	fd, err := unix.PidfdGetfd(t.pidfd, int(number), 0)
	if err != nil {
		return kind
	}
	switch kind {
	case "bpf-map":
		if m, err := ebpf.NewMapFromFD(fd); err == nil { // takes the descriptor, also when it fails
			defer m.Close()
			if info, err := m.Info(); err == nil {
				return info.Name
			}
		}
	case "bpf-prog":
		if p, err := ebpf.NewProgramFromFD(fd); err == nil {
			defer p.Close()
			if info, err := p.Info(); err == nil {
				return info.Name
			}
		}
	default:
		unix.Close(fd)
	}
	return kind
}
