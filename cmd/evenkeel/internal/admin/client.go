// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
)

// ErrNobody says that no agent answers at a socket: none runs, or it hangs.
var ErrNobody = errors.New("no agent answers")

const (
	// answerTime is how long a client waits for an agent to begin its answer.
	answerTime = 5 * time.Second
	// wholeTime is how long all of an answer may take; that about 100,000 endpoints is some ten megabytes.
	wholeTime = time.Minute
)

// Client asks an agent.
type Client struct {
	path, dir string
	http      http.Client
}

// NewClient returns a client of the agent at a socket, for questions about the data plane that is pinned at dir: an
// agent of another does not answer them. It connects when it is first used.
func NewClient(path, dir string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, dir: filepath.Clean(dir), http: http.Client{
		Transport: &http.Transport{DialContext: dial, MaxIdleConns: 1, ResponseHeaderTimeout: answerTime},
		Timeout:   wholeTime,
	}}
}

// Close gives the connection up.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// get reads a document. It returns an error that wraps ErrNobody if none can be had, and fs.ErrPermission if the agent
// must not be asked by this user.
func (c *Client) get(ctx context.Context, path string, query url.Values, document any) error {
	target := url.URL{Scheme: "http", Host: "agent", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return fmt.Errorf("ask the agent at %s: %w", c.path, err)
	}
	request.Header.Set(dirHeader, c.dir)
	response, err := c.http.Do(request)
	var urlError *url.Error
	if errors.As(err, &urlError) {
		err = urlError.Err // the URL is made up
	}
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, unix.EAGAIN): // so many wait already
		return fmt.Errorf("%w at %s (%w)", ErrNobody, c.path, err)
	default:
		return fmt.Errorf("ask the agent at %s: %w", c.path, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return c.failure(response)
	}
	if err := json.NewDecoder(response.Body).Decode(document); err != nil {
		return fmt.Errorf("read answer of the agent at %s: %w", c.path, err)
	}
	return nil
}

// failure is the error that an agent has answered with.
func (c *Client) failure(response *http.Response) error {
	const most = 4096
	text, err := io.ReadAll(io.LimitReader(response.Body, most))
	if err != nil {
		return fmt.Errorf("read answer of the agent at %s: %w", c.path, err)
	}
	var said failure
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error = string(text)
	}
	switch response.StatusCode {
	case http.StatusForbidden:
		return fmt.Errorf("agent at %s: %s: %w", c.path, said.Error, fs.ErrPermission)
	case http.StatusMisdirectedRequest:
		return fmt.Errorf("%w for %s: that at %s says %q", ErrNobody, c.dir, c.path, said.Error)
	}
	return fmt.Errorf("agent at %s: %s", c.path, said.Error)
}

// Status asks for the status.
func (c *Client) Status(ctx context.Context) (*report.Status, error) {
	s := new(report.Status)
	return s, c.get(ctx, "/v1/status", nil, s)
}

// Services asks for every service.
func (c *Client) Services(ctx context.Context) (*report.Services, error) {
	d := new(report.Services)
	return d, c.get(ctx, "/v1/services", nil, d)
}

// Endpoints asks for every endpoint.
func (c *Client) Endpoints(ctx context.Context) (*report.Endpoints, error) {
	d := new(report.Endpoints)
	return d, c.get(ctx, "/v1/endpoints", nil, d)
}

// Workloads asks for the pods of the node.
func (c *Client) Workloads(ctx context.Context) (*report.Workloads, error) {
	d := new(report.Workloads)
	return d, c.get(ctx, "/v1/workloads", nil, d)
}

// Explain asks what a connection would get.
func (c *Client) Explain(ctx context.Context, q report.Question) (*report.Explanation, error) {
	d := new(report.Explanation)
	return d, c.get(ctx, "/v1/explain", q.Values(), d)
}

// Names asks what services and endpoints, each INDEX.INCARNATION, are called.
func (c *Client) Names(ctx context.Context, services, endpoints []string) (*report.Names, error) {
	all := report.NewNames()
	for len(services)+len(endpoints) > 0 {
		n := min(len(services), MaxNames)
		m := min(len(endpoints), MaxNames-n)
		query := url.Values{"service": services[:n], "endpoint": endpoints[:m]}
		services, endpoints = services[n:], endpoints[m:]
		if err := c.get(ctx, "/v1/names", query, all); err != nil { // adds to the maps
			return nil, err
		}
	}
	return all, nil
}
