// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// clientTime is how long an echo may take, on a machine that is busy with other things.
const clientTime = 5 * time.Second

// client is a process in the pod: for each line it reads it makes an echo over every kind of connection, old ones and
// new ones, and prints "ok" or what went wrong.
func client([]string) int {
	const service = "10.96.0.10:7"
	var kept []net.Conn
	echo := func(conn net.Conn) error {
		_ = conn.SetDeadline(time.Now().Add(clientTime)) // cannot fail on a socket
		if _, err := io.WriteString(conn, "ping"); err != nil {
			return err
		}
		buffer := make([]byte, 4)
		if _, err := io.ReadFull(conn, buffer); err != nil || string(buffer) != "ping" {
			return fmt.Errorf("sent ping, got %q: %w", buffer, err)
		}
		return nil
	}
	round := func() error {
		for _, network := range []string{"tcp", "udp"} {
			conn, err := net.DialTimeout(network, service, clientTime)
			if err != nil {
				return err
			}
			if got := conn.RemoteAddr().String(); got != service {
				return fmt.Errorf("dialled %s, the peer is %s", service, got)
			}
			kept = append(kept, conn)
		}
		for _, conn := range kept {
			if err := echo(conn); err != nil {
				return fmt.Errorf("%s connection: %w", conn.RemoteAddr().Network(), err)
			}
		}
		return nil
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := round(); err != nil {
			fmt.Fprintln(os.Stdout, err)
		} else {
			fmt.Fprintln(os.Stdout, "ok")
		}
	}
	return 0
}

// podProcess is a client that runs.
type podProcess struct {
	t     *testing.T
	in    io.WriteCloser
	lines *bufio.Scanner
}

func (n *node) startClient(t *testing.T) *podProcess {
	t.Helper()
	group, err := os.Open(n.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), roleVariable+"="+roleClient)
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.inPod(c.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &podProcess{t, in, bufio.NewScanner(out)}
}

// round makes one echo over every connection so far and two new ones.
func (p *podProcess) round() string {
	p.t.Helper()
	fmt.Fprintln(p.in)
	if !p.lines.Scan() {
		p.t.Fatal("the client has ended")
	}
	return p.lines.Text()
}

func (p *podProcess) expectServed(when string) {
	p.t.Helper()
	if got := p.round(); got != "ok" {
		p.t.Errorf("%s: %s", when, got)
	}
}
