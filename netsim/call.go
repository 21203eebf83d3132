// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
)

// ErrAddress is of what cannot be called at all.
var ErrAddress = errors.New("none of http://ADDRESS:PORT/PATH, tcp://ADDRESS:PORT, udp://ADDRESS:PORT")

// callLimit is how many bytes of an answer are read at most.
const callLimit = 1 << 20

// Call asks a server once, from the network namespace that the process is in, and returns what it answers: the body of
// "http://ADDRESS:PORT/PATH", whatever the status; what "tcp://ADDRESS:PORT" sends until it closes, after text was sent
// and the end of it; the datagram that "udp://ADDRESS:PORT" sends back. The context bounds how long that may take. Any
// other address is ErrAddress.
func Call(ctx context.Context, address, text string) ([]byte, error) {
	u, err := parseCall(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" {
		return callHTTP(ctx, u, text)
	}
	answer, err := callSocket(ctx, u.Scheme, u.Host, text)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%s: no answer in time", address)
	}
	return answer, err
}

// CheckCall returns ErrAddress for what Call cannot call.
func CheckCall(address string) error {
	_, err := parseCall(address)
	return err
}

func parseCall(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("%s is %w", address, ErrAddress)
	}
	stream := u.Scheme == "http" && u.Host != ""
	socket := (u.Scheme == "tcp" || u.Scheme == "udp") && u.Port() != "" && u.Path == ""
	if !stream && !socket {
		return nil, fmt.Errorf("%s is %w", address, ErrAddress)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		return nil, fmt.Errorf("%s is %w: nothing resolves names in a lab", address, ErrAddress)
	}
	return u, nil
}

func callHTTP(ctx context.Context, u *url.URL, text string) ([]byte, error) {
	method := http.MethodGet
	if text != "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, u.String(), strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy of the environment either
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(io.LimitReader(response.Body, callLimit))
}

func callSocket(ctx context.Context, network, host, text string) ([]byte, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return nil, err
	}
	if stream, is := conn.(*net.TCPConn); is {
		if err := stream.CloseWrite(); err != nil {
			return nil, err
		}
		return io.ReadAll(io.LimitReader(conn, callLimit))
	}
	datagram := make([]byte, 64<<10)
	n, err := conn.Read(datagram)
	return datagram[:n], err
}
