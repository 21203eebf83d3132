// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// TCP is what the kernel says of a connection: TCP_INFO, see linux/tcp.h.
type TCP struct {
	// State is TCP_ESTABLISHED and so on, without the prefix and in lower case.
	State string `json:"state"`
	// Retransmits and Probes count in the present back-off; TotalRetransmits, Lost and Reordered in segments since the
	// beginning.
	Retransmits      uint8  `json:"retransmits"`
	Probes           uint8  `json:"probes"`
	TotalRetransmits uint32 `json:"total_retransmits"`
	Lost             uint32 `json:"lost"`
	Reordered        uint32 `json:"reordered"`
	// RTO, RTT and RTTVar are in microseconds.
	RTO    uint32 `json:"rto_us"`
	RTT    uint32 `json:"rtt_us"`
	RTTVar uint32 `json:"rttvar_us"`
	// Unacked counts segments on their way, NotSent bytes that have not left.
	Unacked uint32 `json:"unacked"`
	NotSent uint32 `json:"not_sent_bytes"`
}

// tcpStates are in the order of enum in net/tcp_states.h, from 1.
var tcpStates = [...]string{"", "established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close",
	"close_wait", "last_ack", "listen", "closing", "new_syn_recv"}

// Info returns TCP_INFO of a TCP socket.
func Info(socket syscall.Conn) (*TCP, error) {
	var info *unix.TCPInfo
	err := control(socket, func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read TCP_INFO: %w", err)
	}
	state := fmt.Sprint(info.State)
	if int(info.State) < len(tcpStates) {
		state = tcpStates[info.State]
	}
	return &TCP{
		State: state, Retransmits: info.Retransmits, Probes: info.Probes, TotalRetransmits: info.Total_retrans,
		Lost: info.Lost, Reordered: info.Reord_seen, RTO: info.Rto, RTT: info.Rtt, RTTVar: info.Rttvar,
		Unacked: info.Unacked, NotSent: info.Notsent_bytes,
	}, nil
}

// Cookie returns SO_COOKIE: a number that no other socket of this machine has or will have until it is rebooted.
func Cookie(socket syscall.Conn) (uint64, error) {
	var cookie uint64
	err := control(socket, func(fd int) (err error) {
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read SO_COOKIE: %w", err)
	}
	return cookie, nil
}

// growReadBuffer asks for 4 MiB. Without CAP_NET_ADMIN it takes what net.core.rmem_max allows.
func growReadBuffer(socket syscall.Conn) error {
	const size = 4 << 20
	err := control(socket, func(fd int) error {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("grow receive buffer: %w", err)
	}
	return nil
}

// askDestination has every datagram say to which of this machine's addresses it was sent.
func askDestination(socket *net.UDPConn) error {
	err := control(socket, func(fd int) error {
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return err
		}
		if family == unix.AF_INET6 {
			// An address that only a route of type local makes ours is none of an interface's.
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1); err != nil {
				return err
			}
			return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	})
	if err != nil {
		return fmt.Errorf("ask for destinations: %w", err)
	}
	return nil
}

// AnswerFrom makes what a datagram said of its destination, its control message, the source of the answer: on a machine
// with several addresses the kernel would choose another. The interface is left to the route.
func AnswerFrom(control []byte) {
	switch {
	case len(control) >= unix.CmsgSpace(unix.SizeofInet6Pktinfo): // {address, interface}
		clear(control[unix.CmsgLen(16):unix.CmsgLen(20)])
	case len(control) >= unix.CmsgSpace(unix.SizeofInet4Pktinfo): // {interface, source, destination}
		clear(control[unix.CmsgLen(0):unix.CmsgLen(4)])
	}
}

func control(socket syscall.Conn, use func(fd int) error) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = use(int(fd)) }); err != nil {
		return err
	}
	return inner
}
