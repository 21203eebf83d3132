// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"strings"
)

// notify tells whoever started this process how it is (sd_notify(3)): a datagram of lines to a socket. It does nothing
// where nobody asked. A leading '@' stands for the NUL of an abstract address, as Go has it as well.
func notify(socket string, lines ...string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify $NOTIFY_SOCKET: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("notify $NOTIFY_SOCKET: %w", err)
	}
	return nil
}
