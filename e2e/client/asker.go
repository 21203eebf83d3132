// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// asker makes one request and returns who answered, where the protocol tells.
type asker func() (server string, err error)

// asked is what a flow asks; name makes its datagrams its own.
type asked struct {
	kind, to, name string
	timeout        time.Duration
}

// newAsker returns the asker of a kind. Those that keep a connection never replace it: one that breaks fails every
// request from then on, so that nothing is hidden by a retry.
func newAsker(a asked) (asker, error) {
	switch a.kind {
	case "http":
		return a.keptHTTP()
	case "http-new":
		return a.freshHTTP(), nil
	case "tcp", "udp":
		return a.kept()
	case "tcp-new", "udp-new":
		return a.fresh(), nil
	case "udp-free":
		return a.unconnected()
	}
	return nil, fmt.Errorf("unknown kind of flow %q", a.kind)
}

// requestHTTP makes one HTTP/1.1 request on a connection. http.Client is not used for it: on a busy machine it gives up
// a connection that is fine (a writer that reports later than 50 ms) and dials again, and that would count as a loss.
func requestHTTP(conn net.Conn, r *bufio.Reader, timeout time.Duration) (server string, err error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: service\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", response.Status)
	}
	var answer struct {
		Pod string `json:"pod"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("parse answer %q: %w", body, err)
	}
	return answer.Pod, nil
}

func (a asked) keptHTTP() (asker, error) {
	conn, err := net.DialTimeout("tcp", a.to, a.timeout)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	return func() (string, error) { return requestHTTP(conn, r, a.timeout) }, nil
}

func (a asked) freshHTTP() asker {
	return func() (string, error) {
		conn, err := net.DialTimeout("tcp", a.to, a.timeout)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return requestHTTP(conn, bufio.NewReader(conn), a.timeout)
	}
}

// network returns "tcp" or "udp" of a kind.
func (a asked) network() string {
	network, _, _ := strings.Cut(a.kind, "-")
	return network
}

// message returns the numbered request; a lost, repeated or foreign answer then differs from it.
func (a asked) message(sequence uint64) []byte {
	return fmt.Appendf(nil, "%s %s %d\n", a.kind, a.name, sequence)
}

func (a asked) kept() (asker, error) {
	conn, err := net.DialTimeout(a.network(), a.to, a.timeout)
	if err != nil {
		return nil, err
	}
	var sequence uint64
	return func() (string, error) {
		sequence++
		return "", a.exchange(conn, sequence)
	}, nil
}

func (a asked) fresh() asker {
	var sequence uint64
	return func() (string, error) {
		conn, err := net.DialTimeout(a.network(), a.to, a.timeout)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		sequence++
		return "", a.exchange(conn, sequence)
	}
}

func (a asked) exchange(conn net.Conn, sequence uint64) error {
	message := a.message(sequence)
	if err := conn.SetDeadline(time.Now().Add(a.timeout)); err != nil {
		return err
	}
	if _, err := conn.Write(message); err != nil {
		return err
	}
	answer := make([]byte, len(message))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if string(answer) != string(message) {
		return fmt.Errorf("sent %q, got %q", message, answer)
	}
	return nil
}

// unconnected sends from one socket by sendto(); an answer that does not come from the address dialled is a failure.
func (a asked) unconnected() (asker, error) {
	to, err := net.ResolveUDPAddr("udp", a.to)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	var sequence uint64
	buffer := make([]byte, 4096)
	return func() (string, error) {
		sequence++
		message := a.message(sequence)
		if err := conn.SetDeadline(time.Now().Add(a.timeout)); err != nil {
			return "", err
		}
		if _, err := conn.WriteTo(message, to); err != nil {
			return "", err
		}
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return "", err
		}
		if from.Port() != uint16(to.Port) || from.Addr().Unmap() != to.AddrPort().Addr().Unmap() {
			return "", fmt.Errorf("answer of %s, asked %s", from, to)
		}
		if string(buffer[:n]) != string(message) {
			return "", fmt.Errorf("sent %q, got %q", message, buffer[:n])
		}
		return "", nil
	}, nil
}
