// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// clientReport is what a demo client prints, one JSON object per line: totals since it started.
type clientReport struct {
	// Done and Failed count requests; Error is the last failure.
	Done   uint64 `json:"done"`
	Failed uint64 `json:"failed"`
	Error  string `json:"error,omitempty"`
	// Gap is the longest time between two answers, in milliseconds.
	Gap float64 `json:"gap_ms"`
	// Server is who answered last, where the protocol tells.
	Server string `json:"server,omitempty"`
}

// newDemoClientCommand runs inside a pod: it asks one service over and over and reports.
func newDemoClientCommand(e command.Env) *cobra.Command {
	var interval time.Duration
	c := &cobra.Command{
		Use:    "client http|http-new|tcp|udp ADDRESS:PORT",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			ask, err := newAsker(args[0], args[1])
			if err != nil {
				return err
			}
			return askForever(c.Context(), e.Stdout, ask, interval)
		},
	}
	c.Flags().DurationVar(&interval, "interval", 5*time.Millisecond, "time between two requests")
	return c
}

// asker makes one request and returns who answered.
type asker func() (server string, err error)

// newAsker returns an asker of kind. Those that keep a connection never replace it: a connection that breaks fails
// every request from then on, so that nothing is hidden by a retry.
func newAsker(kind, address string) (asker, error) {
	switch kind {
	case "http":
		conn, err := net.DialTimeout("tcp", address, requestTimeout)
		if err != nil {
			return nil, fmt.Errorf("dial tcp %s: %w", address, err)
		}
		r := bufio.NewReader(conn)
		return func() (string, error) { return requestHTTP(conn, r) }, nil
	case "http-new":
		return func() (string, error) {
			conn, err := net.DialTimeout("tcp", address, requestTimeout)
			if err != nil {
				return "", err
			}
			defer conn.Close()
			return requestHTTP(conn, bufio.NewReader(conn))
		}, nil
	case "tcp", "udp":
		conn, err := net.DialTimeout(kind, address, requestTimeout)
		if err != nil {
			return nil, fmt.Errorf("dial %s %s: %w", kind, address, err)
		}
		return newEchoAsker(conn), nil
	}
	return nil, fmt.Errorf("unknown kind of client %q: http, http-new, tcp and udp are known", kind)
}

const requestTimeout = 2 * time.Second

// requestHTTP makes one HTTP/1.1 request on a connection. http.Client is not used for it: on a busy machine it gives up
// a connection that is fine (a writer that reports later than 50 ms) and dials again, and that would count as a loss.
func requestHTTP(conn net.Conn, r *bufio.Reader) (server string, err error) {
	if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: service\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body) // to its end, or the connection cannot be kept
	if err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	var answer struct {
		Pod string `json:"pod"`
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", response.Status)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return answer.Pod, nil
}

// newEchoAsker numbers its messages and wants each back, so that a lost, repeated or foreign answer is a failure.
func newEchoAsker(conn net.Conn) asker {
	var sequence uint64
	buffer := make([]byte, 64)
	return func() (string, error) {
		sequence++
		message := fmt.Sprintf("request %d\n", sequence)
		if err := conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
			return "", err
		}
		if _, err := io.WriteString(conn, message); err != nil {
			return "", err
		}
		n, err := io.ReadAtLeast(conn, buffer[:len(message)], len(message))
		if err != nil {
			return "", err
		}
		if got := string(buffer[:n]); got != message {
			return "", fmt.Errorf("sent %q, got %q", message, got)
		}
		return "", nil
	}
}

// askForever asks every interval until ctx ends, and reports ten times a second.
func askForever(ctx context.Context, out io.Writer, ask asker, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	encoder := json.NewEncoder(out)
	var report clientReport
	last, reported := time.Now(), time.Time{}
	for {
		server, err := ask()
		if err != nil {
			report.Failed++
			report.Error = err.Error()
		} else {
			report.Done++
			report.Server = server
			report.Gap = max(report.Gap, float64(time.Since(last).Microseconds())/1000)
			last = time.Now()
		}
		if time.Since(reported) >= 100*time.Millisecond {
			reported = time.Now()
			if err := encoder.Encode(report); err != nil {
				return fmt.Errorf("report: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return encoder.Encode(report)
		case <-tick.C:
		}
	}
}
