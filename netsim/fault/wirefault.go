// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault/wire"
)

// Wire spoils a wire between two nodes: partition, loss, delay. Programs and devices belong to a process, so ending that
// heals.
type Wire struct {
	Name   string      `json:"name"` // "wire/a,b"
	Config wire.Config `json:"config"`
	Self   []string    `json:"self"` // as in Options
	// Process is the one that does it, after Inject.
	Process netsim.Process `json:"process"`

	cmd  *exec.Cmd
	ask  io.WriteCloser
	told *json.Decoder
	last wire.Counts
}

func (w *Wire) String() string {
	i := w.Config.Impairment
	ways := "both ways"
	if len(w.Config.Ends) == 1 {
		ways = "one way"
	}
	return fmt.Sprintf("%s %s, by %s: %s", w.Name, ways, i.Backend(), i)
}

// Prepare makes sure that what is asked for can be done.
func (w *Wire) Prepare(context.Context) error {
	for _, end := range w.Config.Ends {
		if _, err := os.Stat(end.Netns); err != nil {
			return fmt.Errorf("find network namespace: %w", err)
		}
	}
	return w.Config.Impairment.Validate()
}

// Inject returns when every packet that arrives is subject to it.
func (w *Wire) Inject(context.Context) error {
	text, err := json.Marshal(w.Config)
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	args := append(slices.Clone(w.Self), wireCommand, string(text))
	w.cmd = exec.Command(args[0], args[1:]...)
	w.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	w.cmd.Stderr = os.Stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start process that spoils the wire: %w", err)
	}
	if w.ask, err = w.cmd.StdinPipe(); err != nil {
		return fmt.Errorf("start process that spoils the wire: %w", err)
	}
	if err := w.cmd.Start(); err != nil {
		return fmt.Errorf("start process that spoils the wire: %w", err)
	}
	if w.Process, err = netsim.ProcessOf(w.cmd.Process.Pid); err != nil {
		return err
	}
	w.told = json.NewDecoder(bufio.NewReader(out))
	_, err = w.report()
	return err
}

func (w *Wire) report() (c wire.Counts, err error) {
	var r struct {
		wire.Counts
		Error string
	}
	if err := w.told.Decode(&r); err != nil {
		return c, fmt.Errorf("the process that spoils the wire says nothing more: %w", err)
	}
	if r.Error != "" {
		return c, errors.New(r.Error)
	}
	return r.Counts, nil
}

// Counts returns what has become of packets up to now, or up to Heal.
func (w *Wire) Counts() (wire.Counts, error) {
	if w.ask == nil {
		return w.last, nil
	}
	if _, err := fmt.Fprintln(w.ask); err != nil {
		return w.last, fmt.Errorf("ask for counts: %w", err)
	}
	c, err := w.report()
	if err == nil {
		w.last = c
	}
	return c, err
}

// Heal ends the process, and with it all that it did.
func (w *Wire) Heal(ctx context.Context) error {
	if w.Process.Start != 0 {
		if err := killProcess(ctx, w.Process); err != nil {
			return err
		}
	}
	if w.ask != nil {
		w.ask.Close()
		w.ask = nil
		_ = w.cmd.Wait() // killed
	}
	return nil
}

// Active counts the packets that were dropped or delayed.
func (w *Wire) Active(context.Context) (uint64, error) {
	c, err := w.Counts()
	return c.Dropped + c.Delayed, err
}
