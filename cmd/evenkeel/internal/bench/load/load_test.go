// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// roleVariable makes this binary a server or a client. They are processes of their own because a thread in a raw system
// call holds up the garbage collection of its process.
const roleVariable = "LOAD_TEST_ROLE"

func TestMain(m *testing.M) {
	role, argument, _ := strings.Cut(os.Getenv(roleVariable), " ")
	if role == "" {
		os.Exit(m.Run())
	}
	if err := play(role, argument); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func play(role, argument string) error {
	if role == "client" {
		return Serve(os.Stdin, os.Stdout, nil)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	at, err := netip.ParseAddrPort(argument)
	if err != nil {
		return err
	}
	ready := func() error { _, err := os.Stdout.WriteString("ready\n"); return err }
	if role == "one" {
		return ServeOne(at, ready)
	}
	return ServeMany(at, ready)
}

func mustServe(t *testing.T, role string) netip.AddrPort {
	t.Helper()
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(free.Addr().String())
	free.Close()
	server := mustCommand(t, role+" "+at.String())
	stdin, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := server.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	return at
}

func mustCommand(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	// No collection within a block, as Prepare has it; the priority is not this test's business.
	c.Env = append(os.Environ(), roleVariable+"="+role, "GOGC=off", "GODEBUG=asyncpreemptoff=1")
	c.Stderr = os.Stderr
	return c
}

func mustRun(t *testing.T, blocks ...Block) []Result {
	t.Helper()
	var in, out bytes.Buffer
	for _, b := range blocks {
		if err := json.NewEncoder(&in).Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	client := mustCommand(t, "client")
	client.Stdin, client.Stdout = &in, &out
	if err := client.Run(); err != nil {
		t.Fatal(err)
	}
	var results []Result
	for d := json.NewDecoder(&out); d.More(); {
		var r Result
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	if len(results) != len(blocks) {
		t.Fatalf("%d results of %d blocks", len(results), len(blocks))
	}
	return results
}

const short = 20 * time.Millisecond

func TestBlocks(t *testing.T) {
	one, many := mustServe(t, "one"), mustServe(t, "many")
	blocks := []Block{
		{Kind: Request, To: one}, {Kind: Connect, To: one}, {Kind: Connect, To: many, Connections: 8},
		{Kind: Connect, To: many, Connections: 64}, {Kind: Fresh, To: one, Addresses: 10}, {Kind: Again, To: one},
	}
	for i := range blocks {
		blocks[i].Duration = short
		blocks[i].Charged = []int{os.Getpid()}
	}
	for i, r := range mustRun(t, blocks...) {
		b := blocks[i]
		if r.Error != "" {
			t.Errorf("%s, %d connections: %s", b.Kind, b.Connections, r.Error)
			continue
		}
		if r.Operations < 2 || r.Elapsed < short || r.CPU <= 0 || r.Median <= 0 || r.Mean <= 0 || r.P99 < r.Median {
			t.Errorf("%s, %d connections: %+v", b.Kind, b.Connections, r)
		}
	}
}

// What is wasted is seen, or no control that wastes could be.
func TestHandicap(t *testing.T) {
	const handicap = 2 * time.Millisecond
	at := mustServe(t, "one")
	for i, r := range mustRun(t,
		Block{Kind: Request, To: at, Duration: short, Handicap: handicap},
		Block{Kind: Connect, To: at, Duration: short, Handicap: handicap},
		Block{Kind: Fresh, To: at, Duration: short, Handicap: handicap}) {
		if r.Error != "" || r.Median < handicap {
			t.Errorf("block %d: %+v", i, r)
		}
	}
}

func TestFailures(t *testing.T) {
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	for i, r := range mustRun(t,
		Block{Kind: Request, To: closed, Duration: short}, Block{Kind: Connect, To: closed, Duration: short},
		Block{Kind: Connect, To: closed, Duration: short, Connections: 4}, Block{Kind: "nonsense", To: closed}) {
		if r.Error == "" {
			t.Errorf("block %d: %+v, want an error", i, r)
		}
		if i < 3 && !strings.Contains(r.Error, "refused") {
			t.Errorf("block %d: %q does not say why", i, r.Error)
		}
	}
}

func TestCPUTimeOfNobody(t *testing.T) {
	if _, err := CPUTime(1 << 22); err == nil {
		t.Error("a process that cannot be has used CPU time")
	}
}
