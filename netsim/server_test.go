// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
)

// mustServe runs servers and returns when they listen. Each gets a port that was free a moment ago.
func mustServe(t *testing.T, protocols ...string) (ports []string) {
	t.Helper()
	var servers []string
	for _, protocol := range protocols {
		port := freePort(t, protocol)
		ports = append(ports, port)
		servers = append(servers, protocol+" :"+port)
	}
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, "web-0", servers, write) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if text, err := io.ReadAll(read); err != nil || string(text) != serverReady {
		t.Fatalf("%q, %v", text, err)
	}
	return ports
}

func freePort(t *testing.T, protocol string) string {
	t.Helper()
	var address net.Addr
	if protocol == "udp" {
		conn, err := net.ListenPacket("udp", "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		address = conn.LocalAddr()
	} else {
		listener, err := net.Listen("tcp", "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		address = listener.Addr()
	}
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestHTTPServerKeepsConnections(t *testing.T) {
	port := mustServe(t, "http")[0]
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i, host := range []string{"127.0.0.1", "127.0.0.1", "127.0.0.1"} {
		reused := false
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
		request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET",
			fmt.Sprintf("http://%s:%s/some/path", host, port), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		var answer map[string]string
		err = json.NewDecoder(response.Body).Decode(&answer)
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil || answer["pod"] != "web-0" || answer["path"] != "/some/path" ||
			!strings.Contains(answer["remote"], "127.0.0.1:") {
			t.Errorf("%v, %v", answer, err)
		}
		if reused != (i > 0) {
			t.Errorf("request %d: connection used again: %v", i, reused)
		}
	}
}

func TestEchoServers(t *testing.T) {
	ports := mustServe(t, "tcp", "udp")
	for _, host := range []string{"127.0.0.1", "::1"} {
		for i, network := range []string{"tcp", "udp"} {
			conn, err := net.Dial(network, net.JoinHostPort(host, ports[i]))
			if err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, 1000)
			who := map[string]string{"tcp": "who? me", "udp": "web-0 me"}[network]
			for say, want := range map[string]string{"one": "one", "two more": "two more", "who? me": who} {
				if _, err := conn.Write([]byte(say)); err != nil {
					t.Fatal(err)
				}
				n, err := conn.Read(buffer)
				if got := string(buffer[:n]); err != nil || got != want {
					t.Errorf("%s %s: said %q, got %q, %v", network, host, say, got, err)
				}
			}
			conn.Close()
		}
	}
}

// What is larger than any buffer comes back whole and in order.
func TestEchoIsComplete(t *testing.T) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+mustServe(t, "tcp")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		_, _ = io.WriteString(conn, sent) // an error shows in what is read
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != sent {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
}

func TestServeSaysWhatItCannot(t *testing.T) {
	taken := mustServe(t, "tcp")[0]
	for server, want := range map[string]string{"tcp :" + taken: "address already in use", "ftp :21": `"ftp :21"`} {
		if err := Serve(t.Context(), "web-0", []string{server}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", server, err)
		}
	}
}
