// SPDX-License-Identifier: Apache-2.0

package footprint

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestConstants(t *testing.T) {
	for line, want := range map[string][2]uintptr{
		"00f66000-01b7e000 r--p 00b66000 fe:00 1234   /usr/bin/evenkeel\n": {0xf66000, 0x1b7e000},
		"00400000-00f66000 r-xp 00000000 fe:00 1234   /usr/bin/evenkeel\n": {},
		"01b7e000-01c23000 rw-p 0177e000 fe:00 1234   /usr/bin/evenkeel\n": {},
		"7f00-7f10 r--p 00000000 fe:00 77   /usr/lib/libc.so\n":            {},
		"7f00-7f10 r--p 00000000 00:00 0\n":                                {},
		"":                                                                 {},
	} {
		begin, end, ok := constants(line, "/usr/bin/evenkeel")
		if got := [2]uintptr{begin, end}; got != want || ok != (want[1] != 0) {
			t.Errorf("%q: %x, %v", line, got, ok)
		}
	}
}

// What was garbage is no longer resident, and what the program is made of still works.
func TestRelease(t *testing.T) {
	waste(t)
	before := resident(t)
	if err := Release(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after > before-32<<10 {
		t.Errorf("%d kB resident, %d before 64 MB were garbage", after, before)
	}
}

//go:noinline
func waste(t *testing.T) {
	b := make([]byte, 64<<20)
	for i := range b {
		b[i] = byte(i)
	}
	t.Log(len(b), b[77])
}

func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kB, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kB
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// The heap may grow far once, and by half from then on.
func TestLimit(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	Limit()
	if got := percent(); got != firstPercent {
		t.Errorf("the first collection comes at %d %%, want %d", got, firstPercent)
	}
	for deadline := time.Now().Add(10 * time.Second); percent() != gcPercent; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatalf("collections still come at %d %%, want %d", percent(), gcPercent)
		}
	}
}

func percent() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
