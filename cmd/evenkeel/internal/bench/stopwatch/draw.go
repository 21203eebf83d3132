// SPDX-License-Identifier: Apache-2.0

package stopwatch

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSockets is how many are open at a time.
const maxSockets = 500

// draw connects so many UDP sockets to a service and returns where each leads, as /proc tells: getpeername() would tell
// the service.
func draw(to netip.AddrPort, sockets int) (addresses []netip.Addr, err error) {
	var open []int
	defer func() {
		for _, fd := range open {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	for range sockets {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open socket: %w", err)
		}
		open = append(open, fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
			return nil, fmt.Errorf("connect to %v: %w", to, err)
		}
	}
	const path = "/proc/self/net/udp"
	table, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read sockets: %w", err)
	}
	defer table.Close()
	lines := bufio.NewScanner(table)
	lines.Scan() // names of the columns
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			return nil, fmt.Errorf("read sockets: %s has a line %q", path, lines.Text())
		}
		remote, _, _ := strings.Cut(fields[2], ":")
		bytes, err := hex.DecodeString(remote)
		if err != nil || len(bytes) != 4 {
			return nil, fmt.Errorf("read sockets: %s has a remote address %q", path, fields[2])
		}
		slices.Reverse(bytes) // printed as a number of this machine
		if address := netip.AddrFrom4([4]byte(bytes)); !address.IsUnspecified() {
			addresses = append(addresses, address)
		}
	}
	if len(addresses) < sockets {
		return nil, fmt.Errorf("read sockets: %d of %d are in %s", len(addresses), sockets, path)
	}
	return addresses, lines.Err()
}
