// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
)

func TestAddressIsNetworkOrderAndMapped(t *testing.T) {
	a := AddressOf(netip.MustParseAddr("10.1.2.3"))
	if want := [4]uint32{0, 0, 0xffff0000, 0x0302010a}; a.Word != want { // as a little-endian machine reads the words
		t.Fatalf("10.1.2.3 is %#x, want %#x", a.Word, want)
	}
	for _, s := range []string{"10.1.2.3", "fd00::1", "::1"} {
		if got := AddressOf(netip.MustParseAddr(s)).Addr().String(); got != s {
			t.Errorf("%s came back as %s", s, got)
		}
	}
	if AddressOf(netip.MustParseAddr("::ffff:10.1.2.3")) != a {
		t.Error("a mapped address is not the IPv4 address")
	}
	if (MeshAddress{}).Addr().IsValid() || AddressOf(netip.Addr{}) != (MeshAddress{}) {
		t.Error("no address is not zeroes")
	}
}
