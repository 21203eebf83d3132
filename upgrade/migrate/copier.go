// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// chunk is how many entries one read(2) goes through: while it does, other processes cannot have the CPU. 1,024 take 1.5
// to 3.5 ms of two busy processors.
const chunk = 1024

// Migration moves the entries of one map. Whoever holds its maps and programs, which may be pinned, can go on with it,
// whatever release they are of.
type Migration struct {
	Name     string                   // of the target
	Source   *ebpf.Map                // nobody writes it any more when Copy begins
	Target   *ebpf.Map                //
	Notes    *ebpf.Map                // see state.h
	Programs map[string]*ebpf.Program // those that [Programs] lists, of the linked object
}

// Count is what came of the entries that an iterator saw.
type Count struct {
	Inserted uint64        // by it
	There    uint64        // already
	LeftOut  uint64        // tombstones, and what the schema has no place for
	Failed   uint64        // the target is full
	Longest  time.Duration // CPU time of the longest read(2), during which no other process could have the CPU
	Busy     time.Duration // CPU time of all of them
}

// Seen is how many entries there were.
func (c Count) Seen() uint64 { return c.Inserted + c.There + c.LeftOut + c.Failed }

func (c *Count) add(outcomes []byte) {
	for _, o := range outcomes {
		switch o {
		case 1: // enum copy_outcome
			c.Inserted++
		case 2:
			c.There++
		case 3:
			c.LeftOut++
		default:
			c.Failed++
		}
	}
}

// FullError says that entries found no room.
type FullError struct {
	Map    string
	Failed uint64
	Max    uint32 // entries that the target has room for
}

func (e *FullError) Error() string {
	return fmt.Sprintf("map %s: %d entries found no room, it holds %d: what serves goes on to; make it larger",
		e.Map, e.Failed, e.Max)
}

// Settle makes up for what old code did to entries that the bridge had taken over already. It is called once no code
// that writes the source runs any more, and before Copy. It may be called again.
func (m *Migration) Settle(ctx context.Context) (Count, error) {
	c, err := m.iterate(ctx, "_settle", m.Notes, nil)
	if err != nil {
		return c, fmt.Errorf("settle %s: %w", m.Name, err)
	}
	return c, nil
}

// Copy inserts every entry of the source that is not in the target yet. It may be called again. Progress, which may be
// nil, is told how many entries were seen. It returns a [FullError] if the target has no room for all.
func (m *Migration) Copy(ctx context.Context, progress func(seen uint64)) (Count, error) {
	c, err := m.iterate(ctx, "_copy", m.Source, progress)
	if err == nil && c.Failed > 0 {
		err = &FullError{m.Name, c.Failed, m.Target.MaxEntries()}
	}
	if err != nil {
		return c, fmt.Errorf("copy %s: %w", m.Name, err)
	}
	return c, nil
}

// Reap deletes the tombstones of the target, once no code that makes any runs any more. It may be called again.
func (m *Migration) Reap(ctx context.Context) (Count, error) {
	if m.Programs[m.Name+"_reap"] == nil {
		return Count{}, nil
	}
	c, err := m.iterate(ctx, "_reap", m.Target, nil)
	if err != nil {
		return c, fmt.Errorf("reap %s: %w", m.Name, err)
	}
	return c, nil
}

// iterate runs a program for every entry of a map, in reads that each end after a chunk of output.
func (m *Migration) iterate(ctx context.Context, part string, over *ebpf.Map, progress func(uint64)) (c Count, err error) {
	program := m.Programs[m.Name+part]
	if program == nil || over == nil {
		return c, fmt.Errorf("program %s or its map is missing", m.Name+part)
	}
	it, err := link.AttachIter(link.IterOptions{Program: program, Map: over})
	if err != nil {
		return c, fmt.Errorf("attach iterator: %w", err)
	}
	defer it.Close()
	file, err := it.Open()
	if err != nil {
		return c, fmt.Errorf("open iterator: %w", err)
	}
	defer file.Close()
	runtime.LockOSThread() // whose time is measured
	defer runtime.UnlockOSThread()
	buffer := make([]byte, chunk)
	for {
		if err := ctx.Err(); err != nil {
			return c, context.Cause(ctx)
		}
		start := threadTime()
		n, err := file.Read(buffer)
		took := threadTime() - start
		c.Longest, c.Busy = max(c.Longest, took), c.Busy+took
		c.add(buffer[:n])
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return c, fmt.Errorf("read iterator: %w", err)
		}
		if progress != nil {
			progress(c.Seen())
		}
	}
}

// threadTime is the CPU time that this thread has had.
func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// checkRequest is struct check_request of migrate.h.
type checkRequest struct {
	Keys           uint64
	Count, KeySize uint32
	Missing, Fault uint32
}

// Checked is what a scan of the source found.
type Checked struct {
	Seen    uint64
	Missing uint64        // keys that are not in the target
	Busy    time.Duration // CPU time
}

// Check looks every key of the source up in the target. The scan is by batches, which lock a bucket each and so miss no
// key, and owes nothing to the iterator that copied.
func (m *Migration) Check(ctx context.Context) (c Checked, err error) {
	program := m.Programs[m.Name+"_check"]
	if program == nil {
		return c, fmt.Errorf("check %s: the program is missing", m.Name)
	}
	runtime.LockOSThread() // whose time is measured
	defer runtime.UnlockOSThread()
	begin := threadTime()
	defer func() { c.Busy = threadTime() - begin }()
	room := int(min(m.Source.MaxEntries(), 1<<14)) + 1<<10 // a batch is of whole buckets
	keys, values := elements(m.Source.KeySize(), room), elements(m.Source.ValueSize(), room)
	var cursor ebpf.MapBatchCursor
	for {
		if ctx.Err() != nil {
			return c, fmt.Errorf("check %s: %w", m.Name, context.Cause(ctx))
		}
		n, err := m.Source.BatchLookup(&cursor, keys.Interface(), values.Interface(), nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return c, fmt.Errorf("check %s: read source: %w", m.Name, err)
		}
		request := checkRequest{Keys: uint64(keys.Pointer()), Count: uint32(n), KeySize: m.Source.KeySize()}
		_, err = program.Run(&ebpf.RunOptions{Context: &request, ContextOut: &request})
		if err == nil && request.Fault != 0 {
			err = errors.New("keys could not be read")
		}
		if err != nil {
			return c, fmt.Errorf("check %s: %w", m.Name, err)
		}
		c.Seen += uint64(n)
		c.Missing += uint64(request.Missing)
		if end {
			return c, nil
		}
	}
}

// elements makes a slice of n elements of a size.
func elements(size uint32, n int) reflect.Value {
	return reflect.MakeSlice(reflect.SliceOf(reflect.ArrayOf(int(size), reflect.TypeFor[byte]())), n, n)
}
