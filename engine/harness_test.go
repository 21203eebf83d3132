// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
)

// testEpoch is the epoch of the word in mustMaps.
const testEpoch = 7

// mustMaps returns maps of their own, of the default size, with a word that says generation 1 serves.
func mustMaps(t testing.TB) bpf.MeshMaps {
	t.Helper()
	return mustSizedMaps(t, nil)
}

// mustSizedMaps returns maps of which some have another size.
func mustSizedMaps(t testing.TB, sizes map[string]uint32) bpf.MeshMaps {
	t.Helper()
	mustRoot(t)
	spec := mustSpec(t)
	for name, size := range sizes {
		spec.Maps[name].MaxEntries = size
	}
	var maps bpf.MeshMaps
	clear(spec.Programs)
	all, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	assign(&maps, all.Maps)
	mustWord(t, maps.Super, testEpoch)
	return maps
}

// mustWord makes generation 1 serve.
func mustWord(t testing.TB, super *ebpf.Map, epoch uint64) {
	t.Helper()
	block := make([]byte, super.ValueSize())
	// struct super_block, upgrade/word.h: epoch:16 | floor:12 | serve:12 | canary:12 | share:12 at offset 8.
	binary.NativeEndian.PutUint64(block[8:], epoch<<48|1<<36|1<<24)
	if err := super.Put(uint32(0), block); err != nil {
		t.Fatal(err)
	}
}

func mustSpec(t testing.TB) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	if err := bpf.Configure(spec, 1); err != nil {
		t.Fatal(err)
	}
	return spec
}

// mustPrograms loads the programs in which are named, over maps.
func mustPrograms(t testing.TB, maps bpf.MeshMaps, names ...string) map[string]*ebpf.Program {
	t.Helper()
	spec := mustSpec(t)
	replacements := make(map[string]*ebpf.Map)
	for name, m := range mapsByName(maps) {
		replacements[name] = m
		// A collection wants the maps that it is given to be as its own.
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	keep := make(map[string]bool)
	for _, name := range names {
		keep[name] = true
	}
	for name := range spec.Programs {
		if !keep[name] {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replacements})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return coll.Programs
}

func mapsByName(m bpf.MeshMaps) map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		"super": m.Super, "workloads": m.Workloads, "workload_names": m.WorkloadNames, "sockets": m.Sockets,
		"misses": m.Misses, "service_ids": m.ServiceIds, "services": m.Services, "slots": m.Slots,
		"endpoints": m.Endpoints, "affinities": m.Affinities, "peers": m.Peers, "counters": m.Counters,
		"accelerated":    m.Accelerated,
		"calls_connect4": m.CallsConnect4, "calls_connect6": m.CallsConnect6,
		"calls_sendmsg4": m.CallsSendmsg4, "calls_sendmsg6": m.CallsSendmsg6,
		"calls_recvmsg4": m.CallsRecvmsg4, "calls_recvmsg6": m.CallsRecvmsg6,
		"calls_peername4": m.CallsPeername4, "calls_peername6": m.CallsPeername6,
		"calls_sock_ops": m.CallsSockOps, "calls_sk_lookup": m.CallsSkLookup,
		"calls_tcx": m.CallsTcx, "calls_sk_msg": m.CallsSkMsg,
	}
}

// testOptions are those of an engine with one source, "test", on node "here".
func testOptions(t testing.TB, maps bpf.MeshMaps) Options {
	t.Helper()
	programs := mustPrograms(t, maps, "publish", "destroy_udp")
	return Options{
		Maps: maps, Publisher: bpf.NewPublisher(programs["publish"], testEpoch), DestroyUDP: programs["destroy_udp"],
		Node: "here", Sources: []string{"test"}, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
}

func programsByName(p *bpf.MeshPrograms) map[string]*ebpf.Program {
	return map[string]*ebpf.Program{
		"enter_connect4": p.EnterConnect4, "mesh_connect4": p.MeshConnect4,
		"enter_connect6": p.EnterConnect6, "mesh_connect6": p.MeshConnect6,
		"enter_sendmsg4": p.EnterSendmsg4, "mesh_sendmsg4": p.MeshSendmsg4,
		"enter_sendmsg6": p.EnterSendmsg6, "mesh_sendmsg6": p.MeshSendmsg6,
		"enter_recvmsg4": p.EnterRecvmsg4, "mesh_recvmsg4": p.MeshRecvmsg4,
		"enter_recvmsg6": p.EnterRecvmsg6, "mesh_recvmsg6": p.MeshRecvmsg6,
		"enter_peername4": p.EnterPeername4, "mesh_peername4": p.MeshPeername4,
		"enter_peername6": p.EnterPeername6, "mesh_peername6": p.MeshPeername6,
		"enter_sock_ops": p.EnterSockOps, "mesh_sock_ops": p.MeshSockOps,
	}
}

// mustEngine returns an engine over maps that has the options of testOptions.
func mustEngine(t testing.TB, maps bpf.MeshMaps) *Engine {
	t.Helper()
	e, err := New(context.Background(), testOptions(t, maps))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// mustRoot skips a test that a user cannot run, but fails it in CI.
func mustRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
