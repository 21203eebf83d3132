// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

// A release answers its trial, and one whose programs answer otherwise does not pass it.
func TestTrial(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := upgrade.Try(t.Context(), Of(bpf.DefaultSizes().MaxEntries())); err != nil {
		t.Fatal(err)
	}
	returns := func(name string, kind ebpf.ProgramType, attach ebpf.AttachType, value int32) *ebpf.ProgramSpec {
		return &ebpf.ProgramSpec{Name: name, Type: kind, AttachType: attach, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, value), asm.Return()}}
	}
	const next, drop, pass = -1, 0, 1
	for _, c := range []struct {
		program *ebpf.ProgramSpec
		want    string
	}{
		{returns("mesh_tcx", ebpf.SchedCLS, ebpf.AttachTCXIngress, next), "mesh_tcx: a packet with another address"},
		{returns(bpf.MeshProgPublish, ebpf.Syscall, ebpf.AttachNone, 0), "publish"},
		{returns("mesh_sk_lookup", ebpf.SkLookup, ebpf.AttachSkLookup, drop), "mesh_sk_lookup: a new connection"},
		{returns("mesh_sk_lookup", ebpf.SkLookup, ebpf.AttachSkLookup, pass), "mesh_sk_lookup: inbound is 0 after 1"},
		{returns("enter_sk_lookup", ebpf.SkLookup, ebpf.AttachSkLookup, pass), "a connection while nothing serves"},
		{returns("mesh_sk_msg", ebpf.SkMsg, ebpf.AttachSkMsgVerdict, drop), "mesh_sk_msg: a message of a socket"},
		{returns("mesh_sk_msg", ebpf.SkMsg, ebpf.AttachSkMsgVerdict, pass), "mesh_sk_msg: messages is 0 after 1"},
	} {
		t.Run(c.want, func(t *testing.T) {
			spec, err := bpf.Spec()
			must(t, err)
			name := c.program.Name
			c.program.Flags = spec.Programs[name].Flags
			spec.Programs[name] = c.program
			for n, s := range bpf.DefaultSizes().MaxEntries() {
				spec.Maps[n].MaxEntries = min(s, 64)
			}
			loaded, err := ebpf.NewCollection(spec)
			must(t, err)
			defer loaded.Close()
			if err := Trial(t.Context(), loaded); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it passes: %v", err)
			}
		})
	}
}
