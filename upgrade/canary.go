// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Shares is the denominator of a share of new connections.
const Shares = uint16(superWordLayoutWORD_SHARES)

// Canary says how a release is tried by a share of the new connections before all get it. After each step its counters
// are compared with those of the release that serves, over the same time; a rule that is broken withdraws it, or goes
// back if it serves already.
type Canary struct {
	Steps []uint16      // of Shares, rising; 0 tries it with the workloads that were chosen only; Shares serves it
	Hold  time.Duration // how long each step is watched
	Count func(*Generation) (map[string]uint64, error)
	Rules []Rule
}

// Rule is what a canary must not be worse in.
type Rule struct {
	Name  string   // for people: "connect errors"
	Bad   []string // counters that are added up, and divided by
	Of    []string // the sum of these
	Worse float64  // it is broken if the canary's quotient is more than Worse times the other's
	By    float64  // and By above that
	Least uint64   // Of that the canary needs to have for the rule to say anything
	Unit  string   // of the quotient, "" for a share
}

// Breach is a rule that a canary broke.
type Breach struct {
	Rule            string
	Canary, Serving float64 // the two quotients
	Of              uint64  // what the canary's was of
	Unit            string
}

func (b *Breach) Error() string {
	return fmt.Sprintf("%s: %s of %d against %s", b.Rule, b.format(b.Canary), b.Of, b.format(b.Serving))
}

func (b *Breach) format(v float64) string {
	if b.Unit == "" {
		return fmt.Sprintf("%.2f%%", 100*v)
	}
	return fmt.Sprintf("%.4g %s", v, b.Unit)
}

// ParseShares reads steps as people write them: "5%,25%,100%".
func ParseShares(text string) ([]uint16, error) {
	var steps []uint16
	for _, part := range strings.Split(text, ",") {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(part), "%"), 64)
		if err != nil || percent < 0 || percent > 100 || percent != percent {
			return nil, fmt.Errorf("share %q: a number from 0%% to 100%%", part)
		}
		share := uint16(percent / 100 * float64(Shares))
		if percent > 0 && share == 0 {
			share = 1
		}
		if n := len(steps); n > 0 && share <= steps[n-1] {
			return nil, fmt.Errorf("share %q: shares rise", part)
		}
		steps = append(steps, share)
	}
	return steps, nil
}

// sample is what two generations have counted at one time.
type sample struct{ canary, serving map[string]uint64 }

func (c *Canary) sample(canary, serving *Generation) (s sample, err error) {
	if s.canary, err = c.Count(canary); err != nil {
		return s, fmt.Errorf("count generation %d: %w", canary.Number, err)
	}
	if s.serving, err = c.Count(serving); err != nil {
		return s, fmt.Errorf("count generation %d: %w", serving.Number, err)
	}
	return s, nil
}

// judge compares what two generations have done since a sample. It returns nil if no rule is broken.
func (c *Canary) judge(before, now sample) *Breach {
	for _, r := range c.Rules {
		sum := func(names []string, now, before map[string]uint64) (n uint64) {
			for _, name := range names {
				n += now[name] - before[name]
			}
			return n
		}
		of := sum(r.Of, now.canary, before.canary)
		if of == 0 || of < r.Least {
			continue
		}
		b := &Breach{Rule: r.Name, Canary: float64(sum(r.Bad, now.canary, before.canary)) / float64(of), Of: of, Unit: r.Unit}
		if n := sum(r.Of, now.serving, before.serving); n > 0 {
			b.Serving = float64(sum(r.Bad, now.serving, before.serving)) / float64(n)
		}
		if b.Canary > b.Serving*r.Worse+r.By {
			return b
		}
	}
	return nil
}

// looks is how often a step is looked at while it is held.
const looks = 20

// hold watches two generations for a while. The lock is given back meanwhile.
func (s *Store) hold(ctx context.Context, c *Canary, canary, serving *Generation, o *Attempt, what string) (*Breach, error) {
	before, err := c.sample(canary, serving)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(max(c.Hold/looks, time.Millisecond))
	defer tick.Stop()
	begin := time.Now()
	for end := begin.Add(c.Hold); ; {
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			s.mu.Lock()
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
		s.mu.Lock()
		if s.view == nil {
			return nil, errors.New("the pinned state was given up meanwhile")
		}
		now, err := c.sample(canary, serving)
		if err != nil {
			return nil, err
		}
		if b := c.judge(before, now); b != nil {
			return b, nil
		}
		o.say(Progress{Doing: what, Done: uint64(time.Since(begin) / time.Millisecond), Total: uint64(c.Hold / time.Millisecond)})
		if !time.Now().Before(end) {
			return nil, nil
		}
	}
}

// tryCanary goes through the steps before the one that serves all. What breaks a rule is withdrawn at once.
func (s *Store) tryCanary(ctx context.Context, g *Generation, o *Attempt) error {
	c := o.Canary
	serving := s.view.generations[s.Word().Serve()]
	digest := s.view.super.digest(g.Number)
	for _, share := range c.Steps {
		if share >= Shares {
			break
		}
		next, err := s.Word().Try(g.Number, share)
		if err != nil {
			return err
		}
		if err := s.store(s.Word(), next); err != nil {
			return err
		}
		what := fmt.Sprintf("canary %.4g%%", 100*float64(share)/float64(Shares))
		if err := s.tell(KindCanary, serving.Number, g.Number, digest, "%s: %s", g.record.name(), what); err != nil {
			return err
		}
		breach, err := s.hold(ctx, c, g, serving, o, what)
		if err == nil && breach == nil {
			continue
		}
		reason := fmt.Sprintf("at %s: %v", what, breach)
		if breach == nil {
			reason = fmt.Sprintf("at %s: %v", what, err)
		}
		return errors.Join(s.withdraw(context.WithoutCancel(ctx), g, serving, reason), fmt.Errorf("the canary was withdrawn %s", reason))
	}
	return nil
}

// withdraw ends a canary: its connections are carried over to what serves.
func (s *Store) withdraw(ctx context.Context, g, serving *Generation, reason string) error {
	digest := s.view.super.digest(g.Number)
	if err := s.store(s.Word(), s.Word().Withdraw()); err != nil {
		return err
	}
	if err := s.tell(KindWithdraw, serving.Number, serving.Number, digest, "%s", reason); err != nil {
		return err
	}
	return s.retire(ctx, g.Number)
}

// holdServing watches the step at which the release serves all, and goes back if it breaks a rule.
func (s *Store) holdServing(ctx context.Context, g, before *Generation, o *Attempt) error {
	if o.Canary == nil || !slices.Contains(o.Canary.Steps, Shares) || s.view.generations[before.Number] == nil {
		return nil
	}
	breach, err := s.holdAlone(ctx, g, before, o)
	if err != nil || breach == nil {
		return err
	}
	reason := "at 100%: " + breach.Error()
	return errors.Join(s.rollback(context.WithoutCancel(ctx), o, reason), fmt.Errorf("it was rolled back %s", reason))
}

// holdAlone compares a release that serves all with what the one before it did in its time: new connections get only
// the one, so the other counts no more.
func (s *Store) holdAlone(ctx context.Context, g, before *Generation, o *Attempt) (*Breach, error) {
	c := *o.Canary
	past, err := c.Count(before)
	if err != nil {
		return nil, err
	}
	count := c.Count
	first := true
	c.Count = func(of *Generation) (map[string]uint64, error) {
		if of.Number != before.Number {
			return count(of)
		}
		if first { // so that its whole life is the time that is compared
			first = false
			return map[string]uint64{}, nil
		}
		return past, nil
	}
	return s.hold(ctx, &c, g, before, o, "serving all")
}

// endCanary withdraws a canary that an owner has left: nobody would notice if it did badly.
func (s *Store) endCanary(ctx context.Context) error {
	word := s.Word()
	g, serving := s.view.generations[word.Canary()], s.view.generations[word.Serve()]
	if g == nil || serving == nil {
		return nil
	}
	s.log.Warn("withdrawing a canary that nobody watches any more", "generation", g.Number)
	return s.withdraw(ctx, g, serving, "whoever watched it is gone")
}
