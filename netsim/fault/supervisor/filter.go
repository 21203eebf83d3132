// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// effects are the commands of bpf(2) that change something, with their names (linux/bpf.h). Those that only read are
// not watched: an agent makes thousands.
var effects = map[uint32]string{
	unix.BPF_MAP_CREATE:                  "MAP_CREATE",
	unix.BPF_MAP_UPDATE_ELEM:             "MAP_UPDATE_ELEM",
	unix.BPF_MAP_DELETE_ELEM:             "MAP_DELETE_ELEM",
	unix.BPF_MAP_LOOKUP_AND_DELETE_ELEM:  "MAP_LOOKUP_AND_DELETE_ELEM",
	unix.BPF_MAP_LOOKUP_AND_DELETE_BATCH: "MAP_LOOKUP_AND_DELETE_BATCH",
	unix.BPF_MAP_UPDATE_BATCH:            "MAP_UPDATE_BATCH",
	unix.BPF_MAP_DELETE_BATCH:            "MAP_DELETE_BATCH",
	unix.BPF_MAP_FREEZE:                  "MAP_FREEZE",
	unix.BPF_PROG_LOAD:                   "PROG_LOAD",
	unix.BPF_PROG_ATTACH:                 "PROG_ATTACH",
	unix.BPF_PROG_DETACH:                 "PROG_DETACH",
	unix.BPF_PROG_TEST_RUN:               "PROG_TEST_RUN",
	unix.BPF_PROG_BIND_MAP:               "PROG_BIND_MAP",
	unix.BPF_OBJ_PIN:                     "OBJ_PIN",
	unix.BPF_LINK_CREATE:                 "LINK_CREATE",
	unix.BPF_LINK_UPDATE:                 "LINK_UPDATE",
	unix.BPF_LINK_DETACH:                 "LINK_DETACH",
	unix.BPF_RAW_TRACEPOINT_OPEN:         "RAW_TRACEPOINT_OPEN",
}

// CallNames lists the system calls that can be watched. Of bpf(2) only the commands that change something are.
func CallNames() []string {
	names := []string{"bpf"}
	for _, s := range pathCalls {
		names = append(names, s.name)
	}
	slices.Sort(names)
	return names
}

// newFilter builds the program for seccomp(2) that marks the watched calls, all of them if names is empty.
func newFilter(names []string) ([]unix.SockFilter, error) {
	for _, name := range names {
		if !slices.Contains(CallNames(), name) {
			return nil, fmt.Errorf("watch system call %q: it is none of %q", name, CallNames())
		}
	}
	watched := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	// struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]
	const offsetNumber, offsetArch, offsetArg0 = 0, 4, 16
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	answer := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	unless := func(value uint32, skip int) unix.SockFilter { // goes on if equal
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(skip), K: value}
	}
	filter := []unix.SockFilter{
		load(offsetArch),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: auditArch},
		answer(unix.SECCOMP_RET_ALLOW), // of another architecture
		load(offsetNumber),
	}
	for number, s := range pathCalls {
		if watched(s.name) {
			filter = append(filter, unless(uint32(number), 1), answer(unix.SECCOMP_RET_TRACE))
		}
	}
	if watched("bpf") {
		var commands []unix.SockFilter
		for command := range effects {
			commands = append(commands, unless(command, 1), answer(unix.SECCOMP_RET_TRACE))
		}
		low := uint32(offsetArg0) // the low half of args[0]
		if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
			low += 4
		}
		filter = append(filter, unless(unix.SYS_BPF, len(commands)+1), load(low))
		filter = append(filter, commands...)
	}
	return append(filter, answer(unix.SECCOMP_RET_ALLOW)), nil
}
