// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// made is what a child made happen at each hook, by its own count of system calls and packets, which owes nothing to BPF.
type made [tinyTinyHookTINY_HOOKS]uint64

// makeTraffic makes threads of traffic of a job in a network namespace of its own: it says so when that is set up, begins
// when it is told "go", ends when it is told "stop", and says how much there was. Each round waits for what it sent.
func (j job) makeTraffic() error {
	if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	workers := make([]*worker, j.Busy)
	for i := range workers {
		var err error
		if workers[i], err = newWorker(j.Dir, uint32(i)); err != nil {
			return err
		}
	}
	orders := bufio.NewReader(os.Stdin)
	fmt.Fprintln(os.Stdout, "done 0")
	if _, err := orders.ReadString('\n'); err != nil {
		return err
	}
	packets, err := loopbackPackets(os.Getpid())
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	var stop atomic.Bool
	errs, told := make([]error, j.Busy), make(chan error, 1)
	go func() {
		_, err := orders.ReadString('\n')
		stop.Store(true)
		told <- err
	}()
	for i, w := range workers {
		group.Go(func() {
			for errs[i] == nil && !stop.Load() {
				errs[i] = w.round()
			}
			stop.Store(true) // what fails fails at once
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := <-told; err != nil {
		return err
	}
	var all made
	for _, w := range workers {
		for hook, n := range w.made {
			all[hook] += n
		}
	}
	all[tinyTinyHookTINY_TCX] = -packets // with the packets in the end, for the last may be on its way
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, orders)
	return err
}

// worker is one thread of traffic: new UDP sockets that are connected and asked for their peer, messages of a TCP socket
// in the sockhash, and datagrams to a socket that has to be looked up.
type worker struct {
	made     made
	from, to int // of TCP
	send     int // of UDP
	receive  int
	at       unix.Sockaddr
	byte     [1]byte
}

func newWorker(dir string, key uint32) (*worker, error) {
	w := new(worker)
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	socket := func(kind int) (fd int, err error) {
		if fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
			return -1, err
		}
		return fd, errors.Join(unix.Bind(fd, loopback),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	}
	listener, err := socket(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer unix.Close(listener)
	if err := unix.Listen(listener, 1); err != nil {
		return nil, err
	}
	at, err := unix.Getsockname(listener)
	if err != nil {
		return nil, err
	}
	if w.from, err = socket(unix.SOCK_STREAM); err != nil {
		return nil, err
	}
	if err := unix.Connect(w.from, at); err != nil {
		return nil, err
	}
	w.made[tinyTinyHookTINY_CONNECT4]++
	if w.to, _, err = unix.Accept(listener); err != nil {
		return nil, err
	}
	sockets, err := ebpf.LoadPinnedMap(filepath.Join(dir, pathMaps, "tiny_sockets"), nil)
	if err != nil {
		return nil, err
	}
	defer sockets.Close()
	if err := sockets.Put(key, uint64(w.from)); err != nil {
		return nil, err
	}
	if w.send, err = socket(unix.SOCK_DGRAM); err != nil {
		return nil, err
	}
	if w.receive, err = socket(unix.SOCK_DGRAM); err != nil {
		return nil, err
	}
	w.at, err = unix.Getsockname(w.receive)
	return w, err
}

func (w *worker) round() error {
	const asked = 4
	if err := connectOnce(asked); err != nil {
		return err
	}
	w.made[tinyTinyHookTINY_CONNECT4]++
	w.made[tinyTinyHookTINY_PEERNAME4] += asked
	if _, err := unix.Write(w.from, w.byte[:]); err != nil {
		return err
	}
	w.made[tinyTinyHookTINY_MSG]++
	if _, err := unix.Read(w.to, w.byte[:]); err != nil {
		return fmt.Errorf("no message came: %w", err)
	}
	if err := unix.Sendto(w.send, w.byte[:], 0, w.at); err != nil {
		return err
	}
	w.made[tinyTinyHookTINY_LOOKUP]++
	if _, err := unix.Read(w.receive, w.byte[:]); err != nil {
		return fmt.Errorf("no datagram came: %w", err)
	}
	return nil
}

// loopbackPackets is how many packets the loopback of a process's network namespace has got.
func loopbackPackets(pid int) (n uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, err
	}
	_, counts, _ := strings.Cut(string(text), "lo:")
	_, err = fmt.Sscan(counts, new(uint64), &n)
	return n, err
}

// ran is how many events the programs of a generation counted.
func ran(t *testing.T, g *Generation) uint64 { return ranAt(t, g)[tinyTinyHookTINY_ALL] }

// Why prog arrays are pinned before anything is attached: the kernel empties one when its last descriptor or pin goes,
// though programs go on jumping through it.
func TestProgArrayLivesByItsName(t *testing.T) {
	b := newBed(t)
	spec, err := loadTiny()
	if err != nil {
		t.Fatal(err)
	}
	load := func(pinned bool) ebpf.MapID {
		o, err := readObject(tinyPlane(_TinyBytes))
		if err != nil {
			t.Fatal(err)
		}
		super, err := createSuper()
		if err != nil {
			t.Fatal(err)
		}
		defer super.Close()
		use := map[string]*ebpf.Map{"super": super}
		for _, name := range []string{"tiny_totals", "calls_lookup"} {
			m, err := ebpf.NewMap(spec.Maps[name])
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			use[name] = m
		}
		entry, err := o.loadOne(0, "enter_lookup", use)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { entry.Close() }) // which uses the array all the time
		program := intruderProgram(t, ebpf.SkLookup, ebpf.AttachSkLookup)
		defer program.Close()
		if err := use["calls_lookup"].Put(uint32(16), program); err != nil {
			t.Fatal(err)
		}
		if pinned {
			if err := pin(use["calls_lookup"], b.dir); err != nil {
				t.Fatal(err)
			}
		}
		return mapID(use["calls_lookup"])
	}
	named, nameless := openMap(t, load(true)), openMap(t, load(false))
	eventually(t, "the array without a name is empty", func() bool { return !filled(t, nameless) })
	if !filled(t, named) {
		t.Error("the array with a name is empty, too")
	}
}

// openMap opens a map that only a program holds. A prog array that was about to be emptied will be, all the same.
func openMap(t *testing.T, id ebpf.MapID) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func filled(t *testing.T, calls *ebpf.Map) bool {
	t.Helper()
	id, err := slot(calls, 16)
	if err != nil {
		t.Fatal(err)
	}
	return id != 0
}
