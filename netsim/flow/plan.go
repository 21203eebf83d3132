// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// Plan is what one client does.
type Plan struct {
	Flows []Spec `json:"flows"`
	// Drain is how long answers are waited for at the end; 0 means 5 s.
	Drain Duration `json:"drain,omitempty"`
}

// Spec is one flow or probe.
type Spec struct {
	// Name tells it from others of the run.
	Name string `json:"name"`
	// Kind is one of Kinds.
	Kind string `json:"kind"`
	// To is an address and port: names would be another thing that can fail.
	To netip.AddrPort `json:"to"`
	// Period is the time between two frames or attempts, Size that of a frame in bytes. 0: the kind's.
	Period Duration `json:"period,omitempty"`
	Size   int      `json:"size,omitempty"`
	// Must is pass or fail, for a probe.
	Must string `json:"must,omitempty"`
	// Protocol of a probe is one of wire.Protocols; default is stream.
	Protocol string `json:"protocol,omitempty"`

	kind Kind
}

// Duration is a time.Duration that is written as "10ms".
type Duration time.Duration

// MarshalText writes it as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

const (
	minPeriod    = time.Millisecond
	defaultDrain = 5 * time.Second
)

// ParsePlan reads a plan and fills in what was left empty. The error says which flow is wrong, and how.
func ParsePlan(text []byte) (*Plan, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	plan := &Plan{}
	if err := decoder.Decode(plan); err != nil {
		return nil, fmt.Errorf("parse plan: %w", err)
	}
	if err := plan.complete(); err != nil {
		return nil, err
	}
	return plan, nil
}

func (p *Plan) complete() error {
	if len(p.Flows) == 0 {
		return fmt.Errorf("plan: it has no flows")
	}
	if p.Drain < 0 {
		return fmt.Errorf("plan: drain %v is negative", time.Duration(p.Drain))
	}
	if p.Drain == 0 {
		p.Drain = Duration(defaultDrain)
	}
	seen := map[string]bool{}
	for i := range p.Flows {
		s := &p.Flows[i]
		if s.Name == "" || seen[s.Name] {
			return fmt.Errorf("plan: flow %d: name %q is empty or used before", i, s.Name)
		}
		seen[s.Name] = true
		if err := s.complete(); err != nil {
			return fmt.Errorf("plan: flow %s: %w", s.Name, err)
		}
	}
	return nil
}

func (s *Spec) complete() error {
	kind := findKind(s.Kind)
	if kind == nil {
		return fmt.Errorf("kind %q is unknown: there are %s", s.Kind, kindNames())
	}
	s.kind = *kind
	if s.Protocol != "" {
		if s.Kind != "probe" {
			return fmt.Errorf("protocol %s: only kind probe has a choice", s.Protocol)
		}
		if s.kind.Protocol = wire.Find(s.Protocol); s.kind.Protocol == nil {
			return fmt.Errorf("protocol %q is unknown", s.Protocol)
		}
	}
	if s.Kind == "storm" && s.Must == "" {
		s.Must = record.MustPass
	}
	switch known := s.Must == record.MustPass || s.Must == record.MustFail; {
	case s.Kind == "probe" && !known:
		return fmt.Errorf("must %q: a probe must pass or fail", s.Must)
	case s.Kind == "storm" && s.Must != record.MustPass, s.Must != "" && !kind.Attempts():
		return fmt.Errorf("must %s: only kind probe has a choice", s.Must)
	}
	if !s.To.IsValid() || s.To.Port() == 0 {
		return fmt.Errorf("to %q is no address and port", s.To)
	}
	if s.Period == 0 {
		s.Period = Duration(s.kind.Period)
	}
	if time.Duration(s.Period) < minPeriod {
		return fmt.Errorf("period %v is below %v", time.Duration(s.Period), minPeriod)
	}
	if s.Size == 0 {
		s.Size = s.kind.Size
	}
	largest := wire.MaxSize
	if s.kind.Protocol.Network == "udp" {
		largest = wire.MaxDatagram
	}
	if s.Size < wire.HeaderSize || s.Size > largest {
		return fmt.Errorf("size %d is not within %d and %d", s.Size, wire.HeaderSize, largest)
	}
	return nil
}

func kindNames() string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, k.Name)
	}
	return strings.Join(names, ", ")
}

// held returns how long the server holds an answer back.
func (s *Spec) held() time.Duration {
	if s.kind.shape != hold {
		return 0
	}
	return time.Duration(float64(s.Period) * holdShare)
}

// hello is the payload of the first frame: what the server has to do.
type hello struct {
	// Push is the period in which the server sends frames of Size; 0: it answers.
	Push Duration `json:"push,omitempty"`
	Size int      `json:"size,omitempty"`
	// Hold is how long it waits with each answer.
	Hold Duration `json:"hold,omitempty"`
}

func parseHello(payload []byte) (hello, error) {
	var h hello
	if err := json.Unmarshal(payload, &h); err != nil {
		return hello{}, fmt.Errorf("parse hello: %w", err)
	}
	if h.Push != 0 && (time.Duration(h.Push) < minPeriod || h.Size < wire.HeaderSize || h.Size > wire.MaxSize) ||
		h.Hold < 0 || time.Duration(h.Hold) > time.Hour {
		return hello{}, fmt.Errorf("parse hello: push %v, size %d, hold %v is out of range", time.Duration(h.Push), h.Size,
			time.Duration(h.Hold))
	}
	return h, nil
}
