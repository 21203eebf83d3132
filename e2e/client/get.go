// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// runGet makes one HTTP request and prints the answer: get [-unix SOCKET] URL.
func runGet(args []string, s streams) error {
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	socket := flags.String("unix", "", "connect to this socket, whatever the URL says")
	if err := flags.Parse(args); err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if *socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", *socket)
		}
	}
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	response, err := client.Get(flags.Arg(0))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return s.out.Encode(report.Response{Status: response.StatusCode, Body: string(body)})
}
