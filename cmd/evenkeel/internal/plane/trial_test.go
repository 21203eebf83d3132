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
	for name, program := range map[string]*ebpf.ProgramSpec{
		"mesh_tcx": {Name: "mesh_tcx", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}},
		bpf.MeshProgPublish: {Name: "publish", Type: ebpf.Syscall, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}},
	} {
		spec, err := bpf.Spec()
		if err != nil {
			t.Fatal(err)
		}
		if program.Type == ebpf.Syscall {
			program.Flags = spec.Programs[name].Flags
		}
		spec.Programs[name] = program
		for n, s := range bpf.DefaultSizes().MaxEntries() {
			spec.Maps[n].MaxEntries = min(s, 64)
		}
		loaded, err := ebpf.NewCollection(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := Trial(t.Context(), loaded); err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(name, "x")) {
			t.Errorf("a wrong %s passes: %v", name, err)
		}
		loaded.Close()
	}
}
