// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// Processors is a process that watches the processors of the machine.
type Processors struct{ *Process }

// StartProcessors runs `BINARY flow processors` and returns when it watches. The recording says when a processor stood
// still. The end of ctx kills it.
func StartProcessors(ctx context.Context, binary, recording string) (*Processors, error) {
	p, err := Start("flow processors", exec.CommandContext(ctx, binary, "flow", "processors"), nil, recording)
	if err != nil {
		return nil, err
	}
	return &Processors{p}, nil
}

// RunProcessors says "ready" on out and records when a processor that this process may use stood still, until the
// context or in ends. It runs before the other processes of the instrument, for which it would otherwise wait: it is
// away again after microseconds.
func RunProcessors(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return fmt.Errorf("ask for processors: %w", err)
	}
	runtime.GOMAXPROCS(set.Count() + 1)
	rec := record.NewWriter(out, "processors", prefer(2))
	beats, watching := errgroup.WithContext(ctx)
	for processor, found := 0, 0; found < set.Count(); processor++ {
		if set.IsSet(processor) {
			found++
			beats.Go(func() error { return rec.Beat(processor, watching.Done()) })
		}
	}
	if err := rec.Say(Ready); err != nil {
		return errors.Join(err, beats.Wait())
	}
	go func() { // ends with in; the process ends with it
		_, _ = io.Copy(io.Discard, in)
		stop()
	}()
	if err := beats.Wait(); err != nil {
		return err
	}
	return rec.Finish()
}
