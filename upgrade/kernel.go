// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// What the kernel can do and the ebpf library does not offer in the form that is needed here.

func bpf(command int, attr unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return errno
	}
	return nil
}

// pinned is anything that can be pinned.
type pinned interface{ FD() int }

// pin makes one more name for an object. The library's Pin moves an object that was opened from a pin, which here would
// take a shared map away from the generation that serves.
func pin(object pinned, path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	attr := struct {
		path  uint64
		fd    uint32
		flags uint32
	}{uint64(uintptr(unsafe.Pointer(name))), uint32(object.FD()), 0}
	err = bpf(unix.BPF_OBJ_PIN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(name)
	runtime.KeepAlive(object)
	return err
}

// info fills out with what the kernel says about an object (BPF_OBJ_GET_INFO_BY_FD); out is a pointer to the kernel's
// struct or a prefix of it.
func info(object pinned, out unsafe.Pointer, size uintptr) error {
	attr := struct {
		fd   uint32
		size uint32
		out  uint64
	}{uint32(object.FD()), uint32(size), uint64(uintptr(out))}
	err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(out)
	runtime.KeepAlive(object)
	return err
}

// mapTypes returns the types of key and value that a map was made with, nil where it has none.
func mapTypes(m *ebpf.Map) (key, value btf.Type, err error) {
	var i struct { // struct bpf_map_info up to btf_value_type_id
		_                     [6]uint32
		_                     [16]byte
		_                     [2]uint32
		_                     [2]uint64
		btf, keyType, valType uint32
		_                     uint32
	}
	if err := info(m, unsafe.Pointer(&i), unsafe.Sizeof(i)); err != nil {
		return nil, nil, fmt.Errorf("read types of map: %w", err)
	}
	if i.btf == 0 {
		return nil, nil, nil
	}
	handle, err := btf.NewHandleFromID(btf.ID(i.btf))
	if err != nil {
		return nil, nil, fmt.Errorf("read types of map: %w", err)
	}
	defer handle.Close()
	spec, err := handle.Spec(nil)
	if err != nil {
		return nil, nil, fmt.Errorf("read types of map: %w", err)
	}
	if i.keyType != 0 {
		if key, err = spec.TypeByID(btf.TypeID(i.keyType)); err != nil {
			return nil, nil, fmt.Errorf("read type of key: %w", err)
		}
	}
	if i.valType != 0 {
		if value, err = spec.TypeByID(btf.TypeID(i.valType)); err != nil {
			return nil, nil, fmt.Errorf("read type of value: %w", err)
		}
	}
	return key, value, nil
}

// sockmapOf returns the id of the map that a link of type SockMap (Linux 6.10) hangs on.
func sockmapOf(l *link.RawLink) (ebpf.MapID, error) {
	var i struct { // struct bpf_link_info
		_     [4]uint32 // type, id, prog_id, padding
		mapID uint32
		_     uint32
	}
	if err := info(l, unsafe.Pointer(&i), unsafe.Sizeof(i)); err != nil {
		return 0, fmt.Errorf("read map of link: %w", err)
	}
	return ebpf.MapID(i.mapID), nil
}
