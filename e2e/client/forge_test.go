// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// A datagram with its checksum in place adds up to all ones with its pseudo header (RFC 768, RFC 8200 section 8.1).
func TestDatagramChecksum(t *testing.T) {
	for _, pair := range [][2]string{{"10.10.1.2:5353", "10.10.1.3:9999"}, {"[fd00::1]:5353", "[fd00::2]:9999"}} {
		from, to := netip.MustParseAddrPort(pair[0]), netip.MustParseAddrPort(pair[1])
		for _, payload := range []string{"", "x", "forged", "\xff\xff\xff"} {
			udp := datagram(from, to, []byte(payload))
			sum := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
			sum = append(sum, 0, 17)
			sum = binary.BigEndian.AppendUint16(sum, uint16(len(udp)))
			sum = append(sum, udp...)
			if len(sum)%2 == 1 {
				sum = append(sum, 0)
			}
			var total uint32
			for i := 0; i < len(sum); i += 2 {
				total += uint32(binary.BigEndian.Uint16(sum[i:]))
			}
			for total>>16 != 0 {
				total = total&0xffff + total>>16
			}
			if total != 0xffff {
				t.Errorf("%v, %q: the sum is %#x", pair, payload, total)
			}
		}
	}
}
