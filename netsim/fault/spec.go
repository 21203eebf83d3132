// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Spec names a fault: in files, on command lines, in what a random walk prints to be repeated.
type Spec struct {
	Fault  string            `json:"fault"`
	Target string            `json:"target"`
	With   map[string]string `json:"with,omitempty"`
	// Seed decides what the fault draws at random.
	Seed uint64 `json:"seed,omitempty"`
}

// ParseSpec reads what String writes: "kill agent/a after=0..50ms seed=7". Values with blanks are quoted as in Go:
// call="bpf OBJ_PIN {pins}/super".
func ParseSpec(text string) (Spec, error) {
	fields, err := split(text)
	if err != nil {
		return Spec{}, fmt.Errorf("fault %q: %w", text, err)
	}
	if len(fields) < 2 {
		return Spec{}, fmt.Errorf("fault %q: want NAME TARGET [PARAMETER=VALUE…] [seed=N]", text)
	}
	s := Spec{Fault: fields[0], Target: fields[1]}
	for _, field := range fields[2:] {
		name, value, found := strings.Cut(field, "=")
		if !found || name == "" {
			return Spec{}, fmt.Errorf("fault %q: %q is no PARAMETER=VALUE", text, field)
		}
		if strings.HasPrefix(value, `"`) {
			if value, err = strconv.Unquote(value); err != nil {
				return Spec{}, fmt.Errorf("fault %q: value of %s: %w", text, name, err)
			}
		}
		if name == "seed" {
			if s.Seed, err = strconv.ParseUint(value, 10, 64); err != nil {
				return Spec{}, fmt.Errorf("fault %q: seed: %w", text, err)
			}
			continue
		}
		if _, twice := s.With[name]; twice {
			return Spec{}, fmt.Errorf("fault %q: %s is given twice", text, name)
		}
		if s.With == nil {
			s.With = map[string]string{}
		}
		s.With[name] = value
	}
	return s, nil
}

// split cuts a text at blanks that are not between quotes.
func split(text string) (fields []string, err error) {
	var field strings.Builder
	quoted, escaped := false, false
	flush := func() {
		if field.Len() > 0 {
			fields = append(fields, field.String())
			field.Reset()
		}
	}
	for _, r := range text {
		switch {
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			flush()
			continue
		case quoted && r == '\\' && !escaped:
			escaped = true
			field.WriteRune(r)
			continue
		case r == '"' && !escaped:
			quoted = !quoted
		}
		escaped = false
		field.WriteRune(r)
	}
	flush()
	if quoted {
		return nil, errors.New("a quote is not closed")
	}
	return fields, nil
}

// String writes the spec on one line; ParseSpec reads it.
func (s Spec) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", s.Fault, s.Target)
	for _, name := range slices.Sorted(maps.Keys(s.With)) {
		value := s.With[name]
		if value == "" || strings.ContainsAny(value, " \t\n\"\\") || strconv.Quote(value) != `"`+value+`"` {
			value = strconv.Quote(value)
		}
		fmt.Fprintf(&b, " %s=%s", name, value)
	}
	if s.Seed != 0 {
		fmt.Fprintf(&b, " seed=%d", s.Seed)
	}
	return b.String()
}

// values are the parameters of a fault, and where it draws what they leave open.
type values struct {
	given  map[string]string
	random *rand.Rand
	seed   uint64
}

func (v values) text(name string) string { return v.given[name] }

func (v values) number(name string) (int, error) {
	low, high, isRange := strings.Cut(v.given[name], "..")
	n, err := strconv.Atoi(low)
	if err == nil && isRange {
		var m int
		if m, err = strconv.Atoi(high); err == nil && m < n {
			err = errors.New("the range is empty")
		}
		if err == nil {
			n += v.random.IntN(m - n + 1)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%s=%s: want a number, or LOW..HIGH to draw one: %w", name, v.given[name], err)
	}
	return n, nil
}

func (v values) duration(name string) (time.Duration, error) {
	low, high, isRange := strings.Cut(v.given[name], "..")
	d, err := time.ParseDuration(low)
	if err == nil && isRange {
		var e time.Duration
		if e, err = time.ParseDuration(high); err == nil && e < d {
			err = errors.New("the range is empty")
		}
		if err == nil {
			d += time.Duration(v.random.Int64N(int64(e-d) + 1))
		}
	}
	if err == nil && d < 0 {
		err = errors.New("it is negative")
	}
	if err != nil {
		return 0, fmt.Errorf("%s=%s: want a duration as 50ms, or LOW..HIGH to draw one: %w", name, v.given[name], err)
	}
	return d, nil
}

// share is a probability: "10%" or "0.1".
func (v values) share(name string) (float64, error) {
	text, percent := strings.CutSuffix(v.given[name], "%")
	f, err := strconv.ParseFloat(text, 64)
	if percent {
		f /= 100
	}
	if err == nil && !(f >= 0 && f <= 1) { // also if it is no number
		err = errors.New("it is not between 0 and 1")
	}
	if err != nil {
		return 0, fmt.Errorf("%s=%s: want a share as 10%% or 0.1: %w", name, v.given[name], err)
	}
	return f, nil
}

func (v values) errno(name string) (unix.Errno, error) {
	for e := unix.Errno(1); e < 200; e++ {
		if unix.ErrnoName(e) == v.given[name] {
			return e, nil
		}
	}
	return 0, fmt.Errorf("%s=%s: want the name of an error as ENOSYS", name, v.given[name])
}

// choice returns which of the words is given.
func (v values) choice(name string, words ...string) (string, error) {
	if !slices.Contains(words, v.given[name]) {
		return "", fmt.Errorf("%s=%s: want %s", name, v.given[name], strings.Join(words, " or "))
	}
	return v.given[name], nil
}
