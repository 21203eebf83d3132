// SPDX-License-Identifier: Apache-2.0

package rcu

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// A grace period is over only when a program that was running when it began has ended. The program says when it begins
// and ends; what it does meanwhile takes a fifth of a second.
func TestSynchronizeWaitsForPrograms(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	flags, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer flags.Close()
	program := mustDawdle(t, flags)
	flag := func(i uint32) (value uint32) {
		t.Helper()
		if err := flags.Lookup(i, &value); err != nil {
			t.Fatal(err)
		}
		return value
	}
	for range 5 {
		for i := range uint32(2) {
			if err := flags.Put(i, uint32(0)); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() {
			_, err := program.Run(&ebpf.RunOptions{Data: make([]byte, 14)})
			done <- err
		}()
		for flag(0) == 0 {
			select {
			case err := <-done:
				if err != nil || flag(0) == 0 {
					t.Fatalf("it never began: %v", err)
				}
				done <- nil // it is over already
			default:
			}
		}
		ended := flag(1) != 0
		err := Synchronize()
		after := flag(1)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if ended {
			continue // this process did not run meanwhile: it shows nothing
		}
		if after == 0 {
			t.Error("the grace period was over while the program ran")
		}
		return
	}
	t.Fatal("the program was over each time before anybody looked")
}

// mustDawdle loads a program that sets the flags 0 and 1, and counts to many millions between them.
func mustDawdle(t *testing.T, flags *ebpf.Map) *ebpf.Program {
	t.Helper()
	const rounds = 8 << 20 // BPF_MAX_LOOPS
	set := func(flag int32) asm.Instructions {
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, int64(flag), asm.Word),
			asm.LoadMapPtr(asm.R1, flags.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "end"),
			asm.StoreImm(asm.R0, 0, 1, asm.Word),
		}
	}
	number := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	function := func(i asm.Instruction, name string, linkage btf.FuncLinkage, parameters ...btf.FuncParam) asm.Instruction {
		return btf.WithFuncMetadata(i.WithSymbol(name),
			&btf.Func{Name: name, Type: &btf.FuncProto{Return: number, Params: parameters}, Linkage: linkage})
	}
	code := set(0)
	code[0] = function(code[0], "dawdle", btf.GlobalFunc, btf.FuncParam{Name: "packet", Type: &btf.Pointer{Target: &btf.Void{}}})
	for range 8 {
		code = append(code, asm.Mov.Imm(asm.R1, rounds),
			asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("round"),
			asm.Mov.Imm(asm.R3, 0), asm.Mov.Imm(asm.R4, 0), asm.FnLoop.Call())
	}
	code = append(code, set(1)...)
	code = append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return(),
		function(asm.Mov.Imm(asm.R0, 0), "round", btf.StaticFunc, btf.FuncParam{Name: "i", Type: number},
			btf.FuncParam{Name: "of", Type: &btf.Pointer{Target: &btf.Void{}}}), asm.Return())
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "dawdle", Type: ebpf.SchedCLS, License: "GPL", Instructions: code})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}
