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
	"runtime/metrics"
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
	c := client{other: other}
	for {
		c.collect()
		var b Block
		if err := orders.Decode(&b); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read block: %w", err)
		}
		r, err := c.run(b)
		if err != nil {
			r = Result{Error: fmt.Sprintf("%s to %v: %v", b.Kind, b.To, err)}
		}
		if err := answers.Encode(r); err != nil {
			return fmt.Errorf("answer block: %w", err)
		}
	}
}

// client runs blocks. It keeps what they need from one to the next: a block may be as short as a few milliseconds.
type client struct {
	other     Runner
	watch     watch
	targets   []target
	targetsOf Block
	allocated uint64 // when garbage was collected last
}

// collect clears garbage between blocks, because none is within. That takes longer than a short block's worth of
// allocations is worth, so it is left until there is something.
func (c *client) collect() {
	const garbage = 4 << 20
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	if metrics.Read(s); s[0].Value.Uint64()-c.allocated > garbage {
		runtime.GC()
		c.allocated = s[0].Value.Uint64()
	}
}

func (c *client) run(b Block) (Result, error) {
	b.Connections = max(b.Connections, 1)
	c.watch.block = b
	switch b.Kind {
	case Request:
		return c.requests(b)
	case Connect:
		if b.Connections > 1 {
			return c.connectMany(b)
		}
		return c.connectOne(b)
	case Fresh:
		return c.connectUDP(b, true)
	case Again:
		return c.connectUDP(b, false)
	}
	if c.other == nil {
		return Result{}, errors.New("the kind of block is not known")
	}
	begin, err := cpuTime(b.Charged)
	if err != nil {
		return Result{}, err
	}
	r, err := c.other(b)
	if err != nil {
		return Result{}, err
	}
	end, err := cpuTime(b.Charged)
	r.CPU = end - begin
	return r, err
}

// watch measures operations that follow each other.
type watch struct {
	block Block
	begin time.Time
	cpu   time.Duration // used when it began
	took  []uint32      // nanoseconds each
}

// start starts the clock; what came before was to warm up.
func (w *watch) start() (err error) {
	if w.took == nil {
		w.took = make([]uint32, 0, 1<<16)
	}
	w.took = w.took[:0]
	w.cpu, err = cpuTime(w.block.Charged)
	w.begin = time.Now()
	return err
}

func (w *watch) add(d time.Duration) { w.took = append(w.took, uint32(min(d, 4*time.Second))) }

// stop returns what was added. elapsed is since the clock was started.
func (w *watch) stop(elapsed time.Duration) (Result, error) {
	end, err := cpuTime(w.block.Charged)
	if err != nil {
		return Result{}, err
	}
	r := Result{Operations: int64(len(w.took)), Elapsed: elapsed, CPU: end - w.cpu}
	if r.Operations == 0 {
		return r, nil
	}
	var sum time.Duration
	for _, ns := range w.took {
		sum += time.Duration(ns)
	}
	slices.Sort(w.took)
	at := func(share int) time.Duration { return time.Duration(w.took[(len(w.took)-1)*share/100]) }
	r.Mean, r.Median, r.P99 = sum/time.Duration(len(w.took)), at(50), at(99)
	return r, nil
}

// waste keeps the CPU busy.
func waste(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

// warm is how many operations come before the clock starts: the first ones after another variant has run find other
// things in the caches.
const warm = 16

func (c *client) requests(b Block) (Result, error) {
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
	w := &c.watch
	if err := w.start(); err != nil {
		return Result{}, err
	}
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
	return w.stop(time.Since(w.begin))
}

func (c *client) connectOne(b Block) (Result, error) {
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
	w := &c.watch
	if err := w.start(); err != nil {
		return Result{}, err
	}
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
	return w.stop(time.Since(w.begin))
}

// connectUDP times connect() of UDP sockets, to addresses in a random order.
func (c *client) connectUDP(b Block, fresh bool) (Result, error) {
	targets := c.targetsFor(b)
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
	w := &c.watch
	w.begin = time.Now()
	for i := -warm; ; i++ {
		if i == 0 {
			if err := w.start(); err != nil {
				return Result{}, err
			}
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
			return w.stop(after)
		}
	}
}

// targetsFor are the addresses of a block.
func (c *client) targetsFor(b Block) []target {
	if of := (Block{To: b.To, Addresses: b.Addresses}); c.targets == nil || of.To != c.targetsOf.To ||
		of.Addresses != c.targetsOf.Addresses {
		c.targets, c.targetsOf = make([]target, max(b.Addresses, 1)), of
		a := b.To.Addr()
		for i := range c.targets {
			c.targets[i] = targetOf(netip.AddrPortFrom(a, b.To.Port()))
			a = a.Next()
		}
	}
	return c.targets
}
