// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCall(t *testing.T) {
	protocols := []string{"http", "tcp", "udp"}
	at := map[string]string{}
	for i, port := range mustServe(t, protocols...) {
		at[protocols[i]] = net.JoinHostPort("127.0.0.1", port)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, test := range []struct{ address, text, want string }{
		{"http://" + at["http"] + "/a", "", `"path":"/a"`},
		{"http://" + at["http"], "posted", `"pod":"web-0"`},
		{"tcp://" + at["tcp"], "hello", "hello"},
		{"tcp://" + at["tcp"], "", ""},
		{"udp://" + at["udp"], "who? hello", "web-0 hello"},
	} {
		answer, err := Call(ctx, test.address, test.text)
		if err != nil || !strings.Contains(string(answer), test.want) {
			t.Errorf("%s, %q: %q, %v", test.address, test.text, answer, err)
		}
	}
	for _, address := range []string{
		"ftp://10.0.0.1", "10.0.0.1:80", "http:///x", "tcp://10.0.0.1", "udp://10.0.0.1:7/x", "http://[", "", "http://web/", "tcp://web:80", "http://:80/",
	} {
		if answer, err := Call(ctx, address, "x"); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %q, %v", address, answer, err)
		}
	}
	nobody := net.JoinHostPort("127.0.0.1", freePort(t, "tcp"))
	for _, scheme := range []string{"http", "tcp"} {
		if answer, err := Call(ctx, scheme+"://"+nobody, "x"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s, nobody listens: %q, %v", scheme, answer, err)
		}
	}
}

// TestCallEnds: who does not answer is not waited for beyond the context.
func TestCallEnds(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Call(ctx, "udp://"+silent.LocalAddr().String(), "x"); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Error(err)
	}
}
