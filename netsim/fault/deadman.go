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
	"time"

	"golang.org/x/sys/unix"
)

// deadMan is a process that heals a fault if nobody says in time that it was healed, or that could: the process that
// injected it is gone.
type deadMan struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// message is what the dead man is told, one JSON object after the other: the fault as it is now, or that it is healed.
type message struct {
	Kind   string          `json:"kind,omitempty"`
	Fault  json.RawMessage `json:"fault,omitempty"`
	Limit  time.Duration   `json:"limit,omitempty"` // nanoseconds from the first message on
	Healed bool            `json:"healed,omitempty"`
}

func describe(f Fault) (message, error) {
	name, err := kindOf(f)
	if err != nil {
		return message{}, err
	}
	text, err := json.Marshal(f)
	if err != nil {
		return message{}, fmt.Errorf("encode %v: %w", f, err)
	}
	return message{Kind: name, Fault: text}, nil
}

// healTime is how long the dead man tries.
const healTime = time.Minute

// arm returns when the dead man has understood what it may have to heal.
func arm(o Options, f Fault) (_ *deadMan, err error) {
	first, err := describe(f)
	if err != nil {
		return nil, err
	}
	first.Limit = o.Limit
	if len(o.Self) == 0 {
		return nil, errors.New("arm dead man: Options.Self is empty: it is the command line that leads to fault.Main")
	}
	args := append(slices.Clone(o.Self), deadManCommand)
	d := &deadMan{cmd: exec.Command(args[0], args[1:]...)}
	d.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true} // Ctrl-C is not for it: it waits for who gets that
	d.cmd.Stderr = os.Stderr
	if d.pipe, err = d.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("arm dead man: %w", err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("arm dead man: %w", err)
	}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("arm dead man: %w", err)
	}
	err = json.NewEncoder(d.pipe).Encode(first)
	if err == nil {
		_, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("arm dead man: %w", err), d.disarm())
	}
	return d, nil
}

// update tells what the fault has noted since.
func (d *deadMan) update(f Fault) error {
	m, err := describe(f)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(d.pipe).Encode(m); err != nil {
		return fmt.Errorf("tell dead man: %w", err)
	}
	return nil
}

// disarm tells that the fault is healed. It fails if the dead man was faster: the fault has lasted too long.
func (d *deadMan) disarm() error {
	told := json.NewEncoder(d.pipe).Encode(message{Healed: true})
	d.pipe.Close()
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the dead man has healed it, or tried to: %w", err)
	}
	if told != nil {
		return fmt.Errorf("disarm dead man: %w", told)
	}
	return nil
}

// errLate is how a dead man ends that had to heal.
var errLate = errors.New("healed by the dead man")

// watch is the dead man. It returns nil if it is told in time that the fault is healed.
func watch(ctx context.Context, messages io.Reader, armed io.Writer) error {
	decoder := json.NewDecoder(messages)
	var m message
	if err := decoder.Decode(&m); err != nil {
		return fmt.Errorf("read fault: %w", err)
	}
	f, err := decode(m)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(armed, "armed"); err != nil {
		return err
	}
	limit := m.Limit
	timer := time.NewTimer(limit)
	defer timer.Stop()
	read := make(chan message)
	go func() {
		defer close(read)
		for {
			var m message
			if decoder.Decode(&m) != nil {
				return // whatever it is, nobody will say more
			}
			read <- m
		}
	}()
	for {
		select {
		case m, more := <-read:
			switch {
			case !more:
				return heal(ctx, f, "the process that injected it has ended")
			case m.Healed:
				return nil
			}
			if f, err = decode(m); err != nil {
				return err
			}
		case <-timer.C:
			return heal(ctx, f, fmt.Sprintf("it has lasted for %v", limit))
		}
	}
}

func heal(ctx context.Context, f Fault, why string) error {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	if err := f.Heal(ctx); err != nil {
		return fmt.Errorf("heal %v, because %s: %w", f, why, err)
	}
	return fmt.Errorf("%v: %w, because %s", f, errLate, why)
}

func decode(m message) (Fault, error) {
	k, err := Lookup(m.Kind)
	if err != nil {
		return nil, err
	}
	f := k.zero()
	if err := json.Unmarshal(m.Fault, f); err != nil {
		return nil, fmt.Errorf("decode fault %s: %w", m.Kind, err)
	}
	return f, nil
}
