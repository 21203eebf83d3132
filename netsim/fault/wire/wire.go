// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Drop says which packets are dropped.
type Drop string

// What can be dropped: nothing, everything, or the packets of about half of all TCP and UDP flows, always the same.
const (
	DropNone Drop = ""
	DropAll  Drop = "all"
	DropHalf Drop = "half"
)

// End is an end of a wire, in the network namespace of its node.
type End struct {
	Netns string `json:"netns"` // path
	Link  string `json:"link"`
}

// Impairment is what happens to packets that arrive at an end.
type Impairment struct {
	Drop Drop `json:"drop,omitempty"`
	// Period and Down, if set, drop only for the first Down of each Period: a wire that flaps.
	Period time.Duration `json:"period,omitempty"`
	Down   time.Duration `json:"down,omitempty"`
	// Loss is the share of packets that are lost, from 0 to 1; Seed decides which: packet by packet, in the order in
	// which they arrive at an end.
	Loss float64 `json:"loss,omitempty"`
	Seed uint64  `json:"seed,omitempty"`
	// Delay is how long a packet takes longer, Jitter how much longer at most, drawn for each. Order is kept.
	Delay  time.Duration `json:"delay,omitempty"`
	Jitter time.Duration `json:"jitter,omitempty"`
}

// Backend is what does it: "bpf" or "bpf+relay".
func (i Impairment) Backend() string {
	if i.Delay > 0 || i.Jitter > 0 {
		return "bpf+relay"
	}
	return "bpf"
}

// String says what is done, as parameters: "drop=half down=1s of 3s loss=0.1 delay=20ms jitter=5ms seed=7".
func (i Impairment) String() string {
	var parts []string
	add := func(is bool, format string, args ...any) {
		if is {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(i.Drop != DropNone, "drop=%s", i.Drop)
	add(i.Period > 0, "down=%v of %v", i.Down, i.Period)
	add(i.Loss > 0, "loss=%v", i.Loss)
	add(i.Delay > 0, "delay=%v", i.Delay)
	add(i.Jitter > 0, "jitter=%v", i.Jitter)
	add(i.Seed != 0, "seed=%d", i.Seed)
	return strings.Join(parts, " ")
}

// Validate says what is wrong with an impairment.
func (i Impairment) Validate() error {
	switch {
	case i.Drop != DropNone && i.Drop != DropAll && i.Drop != DropHalf:
		return fmt.Errorf("drop %q: want all, half or nothing", i.Drop)
	case !(i.Loss >= 0 && i.Loss <= 1): // also if it is no number
		return fmt.Errorf("loss %v is not between 0 and 1", i.Loss)
	case i.Delay < 0 || i.Jitter < 0 || i.Period < 0 || i.Down < 0:
		return errors.New("a duration is negative")
	case i.Down > i.Period:
		return fmt.Errorf("down for %v of every %v", i.Down, i.Period)
	case i.Period > 0 && i.Drop == DropNone:
		return errors.New("it flaps, but drops nothing")
	case i == Impairment{Seed: i.Seed}:
		return errors.New("it does nothing")
	}
	return nil
}

// Config is what Run does: the same impairment at some ends.
type Config struct {
	Ends       []End      `json:"ends"`
	Impairment Impairment `json:"impairment"`
}

// Counts are numbers of packets, of all ends together. What stays on a link, as ARP and neighbour discovery, is not
// counted, and neither lost nor delayed. A packet is what the link carries: for TCP up to 64 KiB (GSO).
type Counts struct {
	Seen    uint64 `json:"seen"`
	Dropped uint64 `json:"dropped"` // of these, dropped or lost
	Delayed uint64 `json:"delayed"` // of these, sent on the detour
	// Returned came back from it, where the kernel may have cut them up (GSO); Overflowed did not: the queue was full.
	Returned   uint64 `json:"returned"`
	Overflowed uint64 `json:"overflowed"`
}

// report is what Run writes: one at the start, then one for every line that it reads.
type report struct {
	Counts
	Error string `json:"error,omitempty"`
}

// Run spoils wires until in ends. It writes one JSON object when it has begun, and one with the counts for every line
// that it reads. It must run in a process of its own, which ends with it.
func Run(ctx context.Context, c Config, in io.Reader, out io.Writer) error {
	encoder := json.NewEncoder(out)
	all, err := start(c)
	if err != nil {
		return errors.Join(err, encoder.Encode(report{Error: err.Error()}))
	}
	defer func() {
		for _, a := range all {
			a.close()
		}
	}()
	if err := encoder.Encode(report{}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(in); lines.Scan() && ctx.Err() == nil; {
		var r report
		for _, a := range all {
			if err := a.count(&r.Counts); err != nil {
				r.Error = err.Error()
			}
		}
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// attached is an end that is spoiled.
type attached struct {
	objects wireObjects
	links   []link.Link
	relay   *relay
}

func start(c Config) (all []*attached, err error) {
	if err := c.Impairment.Validate(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, a := range all {
				a.close()
			}
		}
	}()
	for n, end := range c.Ends {
		a := &attached{}
		all = append(all, a)
		err := inNamespace(end.Netns, func() error { return a.attach(end, c.Impairment, n) })
		if err != nil {
			return all, fmt.Errorf("spoil %s in %s: %w", end.Link, end.Netns, err)
		}
	}
	return all, nil
}

// delayedMark is the mark of packets that return: the wire is theirs alone, so any will do that others are unlikely to
// use. Where it was 0 before it is 0 after.
const delayedMark = 0x64656c61

// attach puts the programs in place; the calling thread is in the namespace. Which end it is decides what is drawn.
func (a *attached) attach(end End, i Impairment, number int) error {
	device, err := net.InterfaceByName(end.Link)
	if err != nil {
		return fmt.Errorf("find link: %w", err)
	}
	config, err := i.config(uint64(number))
	if err != nil {
		return err
	}
	config.Ifindex, config.Mark = uint32(device.Index), delayedMark
	if i.Backend() == "bpf+relay" {
		if a.relay, err = newRelay(i, number); err != nil {
			return err
		}
		config.Tap = uint32(a.relay.index)
	}
	spec, err := loadWire()
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if err := spec.Variables["config"].Set(config); err != nil {
		return fmt.Errorf("configure programs: %w", err)
	}
	if err := spec.LoadAndAssign(&a.objects, nil); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	if a.relay != nil { // what returns must be let through before anything leaves
		if err := a.tcx(a.relay.index, a.objects.WireReturn); err != nil {
			return err
		}
	}
	return a.tcx(device.Index, a.objects.WireArrive)
}

// tcx attaches a program first in order: what is dropped on the wire nobody sees.
func (a *attached) tcx(ifindex int, p *ebpf.Program) error {
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: ebpf.AttachTCXIngress,
		Anchor: link.Head()})
	if err != nil {
		return fmt.Errorf("attach program: %w", err)
	}
	a.links = append(a.links, l)
	return nil
}

func (i Impairment) config(end uint64) (wireWireConfig, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return wireWireConfig{}, fmt.Errorf("read clock: %w", err)
	}
	c := wireWireConfig{Seed: i.Seed<<1 | end, Start: uint64(now.Nano()), Period: uint64(i.Period), Down: uint64(i.Down),
		Loss: uint32(min(i.Loss*(1<<32), math.MaxUint32))}
	switch i.Drop {
	case DropAll:
		c.Drop = wireWireDropWIRE_DROP_ALL
	case DropHalf:
		// Both ends must drop the same half.
		c.Drop, c.Seed = wireWireDropWIRE_DROP_HALF, i.Seed
	}
	return c, nil
}

func (a *attached) count(c *Counts) error {
	if a.objects.WireCounts == nil {
		return nil
	}
	for which, n := range map[wireWireCount]*uint64{wireWireCountWIRE_SEEN: &c.Seen,
		wireWireCountWIRE_DROPPED: &c.Dropped, wireWireCountWIRE_DELAYED: &c.Delayed, wireWireCountWIRE_RETURNED: &c.Returned} {
		var value uint64
		if err := a.objects.WireCounts.Lookup(uint32(which), &value); err != nil {
			return fmt.Errorf("read counter: %w", err)
		}
		*n += value
	}
	if a.relay != nil {
		c.Overflowed += a.relay.overflowed.Load()
	}
	return nil
}

func (a *attached) close() {
	for _, l := range a.links { // no packet leaves for a device that is gone
		l.Close()
	}
	a.objects.Close()
	if a.relay != nil {
		a.relay.close()
	}
}
