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
		path  unsafe.Pointer
		fd    uint32
		flags uint32
	}{unsafe.Pointer(name), uint32(object.FD()), 0}
	err = bpf(unix.BPF_OBJ_PIN, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(object)
	return err
}

// info fills out with what the kernel says about an object (BPF_OBJ_GET_INFO_BY_FD); out is a pointer to the kernel's
// struct or a prefix of it.
func info(object pinned, out unsafe.Pointer, size uintptr) error {
	attr := struct {
		fd   uint32
		size uint32
		out  unsafe.Pointer // and no number: a stack that grows takes what it points to along
	}{uint32(object.FD()), uint32(size), out}
	err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(object)
	return err
}

// programInfo is struct bpf_prog_info up to the name. The library's Program.Info also copies a program's code, its lines
// and its functions, 0.1 ms for some of ours, and a walk over a tree asks a few hundred times which program it has.
type programInfo struct {
	_      uint32 // type
	id     ebpf.ProgramID
	_      [4]uint32 // tag, sizes of code
	_      [3]uint64 // code, time of load
	_      uint32    // user
	maps   uint32    // how many it uses
	mapIDs unsafe.Pointer
	_      [maxName + 1]byte
}

func programID(p *ebpf.Program) ebpf.ProgramID {
	var i programInfo
	if err := info(p, unsafe.Pointer(&i), unsafe.Sizeof(i)); err != nil {
		return 0
	}
	return i.id
}

// mapsOf lists the maps that a program uses.
func mapsOf(p *ebpf.Program) ([]ebpf.MapID, error) {
	var i programInfo
	if err := info(p, unsafe.Pointer(&i), unsafe.Sizeof(i)); err != nil {
		return nil, fmt.Errorf("read maps of program: %w", err)
	}
	if i.maps == 0 {
		return nil, nil
	}
	ids := make([]ebpf.MapID, i.maps)
	i = programInfo{maps: i.maps, mapIDs: unsafe.Pointer(&ids[0])}
	if err := info(p, unsafe.Pointer(&i), unsafe.Sizeof(i)); err != nil {
		return nil, fmt.Errorf("read maps of program: %w", err)
	}
	return ids, nil
}

// mapInfo is struct bpf_map_info up to the name.
type mapInfo struct {
	_    uint32 // type
	id   ebpf.MapID
	_    [4]uint32 // sizes of key and value, entries, flags
	name [maxName + 1]byte
}

func readMap(m *ebpf.Map) (mapInfo, error) {
	var i mapInfo
	err := info(m, unsafe.Pointer(&i), unsafe.Sizeof(i))
	return i, err
}

func mapID(m *ebpf.Map) ebpf.MapID {
	i, err := readMap(m)
	if err != nil {
		return 0
	}
	return i.id
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
