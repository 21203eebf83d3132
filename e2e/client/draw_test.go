// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Lines as Linux 6.18 on x86-64 prints them, without what follows the inode.
const table = `  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode
 1: 00000000000000000000000000000000:A44D 0000000000000000FFFF00000A60000A:0007 01 0:0 0:0 0 0 0 1001
 2: 000010FD010000000000000002000000:A44E 960000FD000000000000000010000000:0050 01 0:0 0:0 0 0 0 1002
 3: 000010FD010000000000000002000000:A44F 960000FD000000000000000010000000:0050 01 0:0 0:0 0 0 0 1003
`

func TestCountRemotes(t *testing.T) {
	got := map[string]int{}
	counted, err := countRemotes([]byte(table), map[uint64]bool{1001: true, 1002: true, 9999: true}, got)
	if err != nil || counted != 2 {
		t.Fatalf("counted %d: %v", counted, err)
	}
	want := map[string]int{"10.0.96.10:7": 1, "[fd00:96::10]:80": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseProcAddress(f *testing.F) {
	for _, seed := range []string{
		"0100007F:1F90", "0000000000000000FFFF00000A60000A:0007", "", ":", "xx:1", "0100007F", "0100007F:1F901",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		address, err := parseProcAddress(text)
		if err == nil && !address.IsValid() {
			t.Errorf("%q: no address and no error", text)
		}
	})
}
