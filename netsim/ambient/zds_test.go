// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// ztunnel speaks ZDS as a ztunnel does that refuses one pod. It returns the names of the pods that it got, each with a
// namespace.
func ztunnel(t *testing.T, socket, refuse string) (names []string) {
	t.Helper()
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte{1 << 3, 1}); err != nil { // ZdsHello{version: V1}
		t.Fatal(err)
	}
	for {
		buffer, rights := make([]byte, 1024), make([]byte, 128)
		n, m, _, _, err := conn.ReadMsgUnix(buffer, rights)
		if err != nil || n == 0 {
			return names
		}
		ack := message(responseAck, nil)
		if add, is, err := field(buffer[:n], requestAdd); err != nil {
			t.Fatal(err)
		} else if is {
			info, _, _ := field(add, addInfo)
			name, _, _ := field(info, infoName)
			names = append(names, string(name))
			messages, err := unix.ParseSocketControlMessage(rights[:m])
			if err != nil || len(messages) != 1 {
				t.Fatalf("pod %s comes with %d messages: %v", name, len(messages), err)
			}
			fds, err := unix.ParseUnixRights(&messages[0])
			if err != nil || len(fds) != 1 {
				t.Fatalf("pod %s comes with %d descriptors: %v", name, len(fds), err)
			}
			unix.Close(fds[0])
			if string(name) == refuse {
				ack = message(responseAck, text(ackError, "no"))
			}
		}
		if _, err := conn.Write(ack); err != nil {
			t.Fatal(err)
		}
		if _, end, _ := field(buffer[:n], requestSnapshotSent); end {
			return names
		}
	}
}

func TestHandover(t *testing.T) {
	dir := t.TempDir()
	h := Handover{Config: filepath.Join(dir, "c.json"), Socket: filepath.Join(dir, "s"), Notify: filepath.Join(dir, "n"),
		Log: slog.New(slog.DiscardHandler)}
	config := &Config{Node: "a", Mesh: mustMesh(t)}
	for i, w := range config.Mesh.Workloads {
		config.Pods = append(config.Pods, Pod{Workload: w, Netns: "/proc/self/ns/net", Inode: uint64(i)})
	}
	encoded, err := config.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Config, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.Notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- ServeZDS(ctx, h) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, err := os.Stat(h.Socket); err != nil; _, err = os.Stat(h.Socket) { // it listens soon
		select {
		case <-tick.C:
		case err := <-done:
			t.Fatal(err)
		}
	}
	if got := strings.Join(ztunnel(t, h.Socket, "slow"), " "); got != "web slow" {
		t.Errorf("one that refuses a pod gets %q", got)
	}
	if got := strings.Join(ztunnel(t, h.Socket, ""), " "); got != "web slow" {
		t.Errorf("it gets %q", got)
	}
	buffer := make([]byte, 100)
	if err := ready.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := ready.Read(buffer); string(buffer[:n]) != "READY=1\n" {
		t.Errorf("it says %q: %v", buffer[:n], err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLocalXDS(t *testing.T) {
	mesh := mustMesh(t)
	encoded, err := mesh.LocalXDS()
	if err != nil {
		t.Fatal(err)
	}
	var got localConfig
	if err := yaml.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(encoded), " 80: 8080\n") {
		t.Errorf("ztunnel wants ports to be numbers:\n%s", encoded)
	}
	web := got.Workloads[0]
	if web.Protocol != "HBONE" || web.Services["default/web.default.svc.cluster.local"][80] != 8080 {
		t.Errorf("web is %+v", web)
	}
	if slow := got.Workloads[1]; slow.Protocol != "TCP" || len(slow.Services) != 1 {
		t.Errorf("slow is %+v", slow)
	}
	if vips := got.Services[0].VIPs; strings.Join(vips, " ") != "/10.96.0.1 /fd00:96::1" {
		t.Errorf("web has %v", vips)
	}
}

func FuzzAck(f *testing.F) {
	f.Add(message(responseAck, nil))
	f.Add(message(responseAck, text(ackError, "no")))
	f.Add([]byte{0xff})
	f.Fuzz(func(_ *testing.T, b []byte) { _ = checkAck(b) })
}
