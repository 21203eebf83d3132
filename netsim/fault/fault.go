// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Fault is one fault, done to one thing. It is encoded as JSON for the process that heals it where the injecting one
// cannot: exported fields carry all that Heal needs.
type Fault interface {
	// Prepare looks at what the fault is done to and notes what Heal will need. It changes nothing that serves. An
	// error says why the fault cannot be done to this thing.
	Prepare(ctx context.Context) error
	// Inject does it, after Prepare.
	Inject(ctx context.Context) error
	// Heal undoes it and returns when it is undone. It may come at any time after Prepare, also without Inject, after
	// another Heal, beside one, and in another process.
	Heal(ctx context.Context) error
	// Active counts how often the fault has bitten since Inject. The number comes from the kernel or from what was hit.
	Active(ctx context.Context) (uint64, error)
	// String says what is done to what.
	fmt.Stringer
}

// ErrInert is returned by the healing of a fault that has not bitten once.
var ErrInert = errors.New("the fault was inert: it has not bitten once")

// defaultLimit is how long a fault lasts at most unless it is said otherwise.
const defaultLimit = 2 * time.Minute

// Options say how faults are injected.
type Options struct {
	// Self is the command line that leads to [Main] with the arguments that follow.
	Self []string
	// Limit is how long a fault may last before the dead man heals it; 0 means 2 minutes.
	Limit time.Duration
	// Observe, if not nil, is told of each event, in order.
	Observe func(Event)
}

// Event is something that happened to a fault.
type Event struct {
	Time  time.Time `json:"time"`
	Fault string    `json:"fault"`
	// What is "inject", "injected", "heal" or "healed"; the first of each pair is told before it is done.
	What string `json:"what"`
	// Active is the counter, for "heal".
	Active uint64 `json:"active,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Register keeps a function to be called at the end of a test or run, after those that were registered later.
type Register func(heal func(context.Context) error)

// Injection is a fault that was injected, or is about to be.
type Injection struct {
	Fault
	options Options

	mu       sync.Mutex
	deadMan  *deadMan
	injected bool
	healed   bool
}

// Inject registers the healing, arms the dead man, then injects the fault. Healing fails with ErrInert if the fault had
// not bitten until then. The injection is returned also with an error, to be healed all the same.
func (o Options) Inject(ctx context.Context, register Register, f Fault) (*Injection, error) {
	if o.Limit == 0 {
		o.Limit = defaultLimit
	}
	i := &Injection{Fault: f, options: o}
	register(i.Heal)
	if err := i.inject(ctx); err != nil {
		i.observe("injected", 0, err)
		return i, fmt.Errorf("inject %v: %w", f, err)
	}
	i.observe("injected", 0, nil)
	return i, nil
}

func (i *Injection) inject(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.Prepare(ctx); err != nil {
		i.healed = true // there is nothing to heal
		return err
	}
	var err error
	if i.deadMan, err = arm(i.options, i.Fault); err != nil {
		i.healed = true
		return err
	}
	i.observe("inject", 0, nil)
	if err := i.Fault.Inject(ctx); err != nil {
		return err
	}
	i.injected = true
	return i.deadMan.update(i.Fault)
}

// Heal undoes the fault. It returns ErrInert if the fault was injected and did nothing. A second call does nothing.
func (i *Injection) Heal(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.healed {
		return nil
	}
	var inert error
	var active uint64
	if i.injected {
		var err error
		active, err = i.Active(ctx)
		switch {
		case err != nil:
			inert = fmt.Errorf("count how often %v has bitten: %w", i.Fault, err)
		case active == 0:
			inert = fmt.Errorf("%v: %w", i.Fault, ErrInert)
		}
	}
	i.observe("heal", active, inert)
	if err := i.Fault.Heal(ctx); err != nil {
		i.observe("healed", 0, err)
		return errors.Join(inert, fmt.Errorf("heal %v: %w", i.Fault, err))
	}
	i.healed = true
	i.observe("healed", 0, nil)
	return errors.Join(inert, i.deadMan.disarm())
}

func (i *Injection) observe(what string, active uint64, err error) {
	if i.options.Observe == nil {
		return
	}
	e := Event{Time: time.Now(), Fault: i.String(), What: what, Active: active}
	if err != nil {
		e.Error = err.Error()
	}
	i.options.Observe(e)
}
