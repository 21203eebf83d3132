// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Runner makes the traffic of a block and fills in what it measured, but for the CPU time.
type Runner func(Block) (Result, error)

// Serve reads blocks from in and answers each on out, until in ends. Kinds that this package does not know are run by
// other, if that is not nil. A block that fails is an answer, too.
func Serve(in io.Reader, out io.Writer, other Runner) error {
	runtime.LockOSThread()
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var b Block
		if err := orders.Decode(&b); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read block: %w", err)
		}
		r, err := run(b, other)
		if err != nil {
			r = Result{Error: err.Error()}
		}
		if err := answers.Encode(r); err != nil {
			return fmt.Errorf("answer block: %w", err)
		}
	}
}

func run(b Block, other Runner) (Result, error) {
	runtime.GC() // between blocks, because there is none within
	begin, err := cpuTime(b.Charged)
	if err != nil {
		return Result{}, err
	}
	b.Connections = max(b.Connections, 1)
	var r Result
	switch b.Kind {
	case Request:
		r, err = requests(b)
	case Connect:
		if b.Connections > 1 {
			r, err = connectMany(b)
		} else {
			r, err = connectOne(b)
		}
	case Fresh:
		r, err = connectUDP(b, true)
	case Again:
		r, err = connectUDP(b, false)
	default:
		if other == nil {
			return Result{}, fmt.Errorf("kind of block %q is not known", b.Kind)
		}
		r, err = other(b)
	}
	if err != nil {
		return Result{}, fmt.Errorf("%s to %v: %w", b.Kind, b.To, err)
	}
	end, err := cpuTime(b.Charged)
	r.CPU = end - begin
	return r, err
}

// watch measures operations that follow each other.
type watch struct {
	begin time.Time
	took  []uint32 // nanoseconds each
}

func newWatch() *watch { return &watch{begin: time.Now(), took: make([]uint32, 0, 1<<16)} }

func (w *watch) add(d time.Duration) { w.took = append(w.took, uint32(min(d, 4*time.Second))) }

// result is of what was added; elapsed is the length of the block.
func (w *watch) result(elapsed time.Duration) Result {
	if len(w.took) == 0 {
		return Result{Elapsed: elapsed}
	}
	var sum time.Duration
	for _, ns := range w.took {
		sum += time.Duration(ns)
	}
	slices.Sort(w.took)
	at := func(share int) time.Duration { return time.Duration(w.took[(len(w.took)-1)*share/100]) }
	return Result{
		Operations: int64(len(w.took)), Elapsed: elapsed,
		Mean: sum / time.Duration(len(w.took)), Median: at(50), P99: at(99),
	}
}

// waste keeps the CPU busy.
func waste(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

// warm is how many operations come before the clock starts: the first ones after another variant has run find other
// things in the caches.
const warm = 64

func requests(b Block) (Result, error) {
	to := targetOf(b.To)
	fd, err := socket(unix.SOCK_STREAM)
	if err != nil {
		return Result{}, err
	}
	defer closeSocket(fd)
	if err := resetOnClose(fd); err != nil {
		return Result{}, err
	}
	if errno := connect(fd, &to); errno != 0 {
		return Result{}, fmt.Errorf("connect: %w", errno)
	}
	var buffer [size]byte
	for range warm {
		if err := exchange(fd, &buffer); err != nil {
			return Result{}, err
		}
	}
	w := newWatch()
	for last := time.Duration(0); last < b.Duration; {
		if err := exchange(fd, &buffer); err != nil {
			return Result{}, err
		}
		if b.Handicap > 0 {
			waste(b.Handicap)
		}
		now := time.Since(w.begin)
		w.add(now - last)
		last = now
	}
	return w.result(time.Since(w.begin)), nil
}

func connectOne(b Block) (Result, error) {
	to := targetOf(b.To)
	var buffer [size]byte
	once := func() error {
		fd, err := socket(unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer closeSocket(fd)
		if err := resetOnClose(fd); err != nil {
			return err
		}
		if errno := connect(fd, &to); errno != 0 {
			return fmt.Errorf("connect: %w", errno)
		}
		return exchange(fd, &buffer)
	}
	for range warm {
		if err := once(); err != nil {
			return Result{}, err
		}
	}
	w := newWatch()
	for last := time.Duration(0); last < b.Duration; {
		if err := once(); err != nil {
			return Result{}, err
		}
		if b.Handicap > 0 {
			waste(b.Handicap)
		}
		now := time.Since(w.begin)
		w.add(now - last)
		last = now
	}
	return w.result(time.Since(w.begin)), nil
}

// connectUDP times connect() of UDP sockets, to addresses in a random order.
func connectUDP(b Block, fresh bool) (Result, error) {
	targets := targetsOf(b)
	order := rand.New(rand.NewPCG(b.Seed, 0))
	fd, err := socket(unix.SOCK_DGRAM)
	if err != nil {
		return Result{}, err
	}
	defer func() { closeSocket(fd) }()
	clean := true // fd was never connected
	nowhere := target{Family: unix.AF_UNSPEC}
	next := func() (err error) {
		switch {
		case clean:
			clean = false
		case fresh:
			closeSocket(fd)
			fd, err = socket(unix.SOCK_DGRAM)
		default:
			if errno := connect(fd, &nowhere); errno != 0 {
				return fmt.Errorf("disconnect: %w", errno)
			}
		}
		return err
	}
	w := newWatch()
	for i := -warm; ; i++ {
		if i == 0 {
			w = newWatch()
		}
		if err := next(); err != nil {
			return Result{}, err
		}
		to := &targets[order.IntN(len(targets))]
		before := time.Since(w.begin)
		errno := connect(fd, to)
		if b.Handicap > 0 {
			waste(b.Handicap)
		}
		after := time.Since(w.begin)
		if errno != 0 {
			return Result{}, fmt.Errorf("connect to %v: %w", netip.AddrFrom4(to.Addr), errno)
		}
		w.add(after - before)
		if i >= 0 && after > b.Duration {
			return w.result(after), nil
		}
	}
}

func targetsOf(b Block) []target {
	targets := make([]target, max(b.Addresses, 1))
	a := b.To.Addr()
	for i := range targets {
		targets[i] = targetOf(netip.AddrPortFrom(a, b.To.Port()))
		a = a.Next()
	}
	return targets
}
