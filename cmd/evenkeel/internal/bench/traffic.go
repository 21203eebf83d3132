// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
)

// variant is how a row is measured beside its plain form.
type variant struct {
	twoCores, bbr, fortio bool
}

// suffix is what an id of the variant ends with.
func (v variant) suffix() string {
	s := ""
	for _, part := range []struct {
		is   bool
		name string
	}{{v.twoCores, "-two-cores"}, {v.bbr, "-bbr"}, {v.fortio, "-fortio"}} {
		if part.is {
			s += part.name
		}
	}
	return s
}

// about tells people.
func (v variant) about() string {
	s := ", one core, "
	if v.twoCores {
		s = ", two cores, "
	}
	if v.bbr {
		s += "bbr"
	} else {
		s += "reno"
	}
	if v.fortio {
		s += ", HTTP by Fortio"
	}
	return s
}

func (v variant) conditions(connections int) conditions {
	c := conditions{twoCores: v.twoCores, congestion: "reno", server: "serve-one"}
	if v.bbr {
		c.congestion = "bbr"
	}
	switch {
	case v.fortio:
		c.server = "serve-http"
	case connections > 1:
		c.server = "serve-many"
	}
	return c
}

// Metrics of traffic.
const (
	metricRate   = "rate"   // operations a second
	metricMedian = "median" // of an operation, nanoseconds
	metricCPU    = "cpu"    // of all processes, nanoseconds per operation
	metricFresh  = "fresh"  // connect() of a fresh socket, nanoseconds
	metricAgain  = "again"  // connect() of the same socket, nanoseconds
)

// compared are the arms of a comparison of traffic, in the order that they are shown; others are those beside no mesh and
// the mesh.
func (s *session) compared(ctx context.Context, c conditions, others ...string) (names []string, links map[string]*link, err error) {
	links = map[string]*link{}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeLinks(links))
		}
	}()
	for _, a := range []struct {
		name    string
		site    func(context.Context) (*site, error)
		pair    int
		service bool
	}{
		{Plain, s.plainSite, 0, false},
		{Again, s.plainSite, 1, false},
		{NAT, s.natSite, 0, true},
		{Ambient, s.peerSite(Ambient), 0, true},
		{Plaintext, s.peerSite(Plaintext), 0, true},
		{Ztunnel, s.peerSite(Ztunnel), 0, true},
		{Mesh, s.meshSite, 0, true},
		{Checked, s.meshSite, 1, true},
	} {
		always := a.name == Plain || a.name == Again || a.name == Mesh || a.name == Checked
		if !always && !slices.Contains(others, a.name) {
			continue
		}
		at, err := a.site(ctx)
		if err != nil {
			return nil, links, err
		}
		l, err := s.connect(ctx, at, at.pairs[a.pair], a.service, c)
		if err != nil {
			return nil, links, fmt.Errorf("%s: %w", a.name, err)
		}
		names, links[a.name] = append(names, a.name), l
	}
	return names, links, nil
}

func closeLinks(links map[string]*link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// traffic runs rounds of one kind of block.
func (s *session) traffic(ctx context.Context, trial string, v variant, b load.Block, others ...string) (series Series, err error) {
	if v.twoCores && s.cpus < 2 {
		return Series{}, errors.New("two cores are needed, and there is one")
	}
	names, links, err := s.compared(ctx, v.conditions(b.Connections), others...)
	if err != nil {
		return Series{}, err
	}
	defer func() { err = errors.Join(err, closeLinks(links)) }()
	p := s.turns(turnOf(b))
	var arms []arm
	for _, name := range names {
		l := links[name]
		arms = append(arms, arm{name: name, block: func(context.Context) (map[string]float64, time.Duration, error) {
			order := b
			order.To, order.Charged, order.Handicap = l.to, l.charged, s.handicap(name)
			order.Duration = s.effort.block / time.Duration(p.turns)
			r, err := l.client.do(order)
			if err != nil {
				return nil, 0, err
			}
			used, err := l.used()
			return map[string]float64{
				metricRate:   float64(r.Operations) / r.Elapsed.Seconds(),
				metricMedian: float64(r.Median),
				metricCPU:    float64(r.CPU) / float64(r.Operations),
			}, used, err
		}})
	}
	return s.run(ctx, trial, arms, p)
}

// turnOf is how long one arm runs before the next does: as short as what comes before the clock starts allows. 0 is for
// what takes long to begin.
func turnOf(b load.Block) time.Duration {
	switch {
	case b.Kind == load.HTTPKeep || b.Kind == load.HTTPNew:
		return 0
	case b.Connections > 32:
		return 50 * time.Millisecond
	case b.Connections > 8:
		return 20 * time.Millisecond
	case b.Connections > 1:
		return 10 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// turns cuts blocks into turns of about such a length.
func (s *session) turns(length time.Duration) plan {
	p := plan{rounds: s.effort.rounds, turns: 1, undisturbed: true}
	if length > 0 {
		p.turns = max(int(s.effort.block/length), 1)
	}
	return p
}

// connectCost runs rounds of connect() alone.
func (s *session) connectCost(ctx context.Context, trial string) (series Series, err error) {
	c := conditions{congestion: "reno", server: "serve-one"}
	names, links, err := s.compared(ctx, c)
	if err != nil {
		return Series{}, err
	}
	defer func() { err = errors.Join(err, closeLinks(links)) }()
	p := s.turns(turnOf(load.Block{Kind: load.Fresh}))
	var arms []arm
	for _, name := range names {
		if name == Checked { // no packet is sent: there is nothing to check
			continue
		}
		l := links[name]
		order := load.Block{
			To: netip.AddrPortFrom(firstEndpoint, endpointPort), Seed: s.Seed,
			Addresses: s.scale.Services, Charged: l.charged, Duration: s.effort.block / time.Duration(2*p.turns), Handicap: s.handicap(name),
		}
		if name == Mesh {
			order.To = netip.AddrPortFrom(firstService, servicePort)
		}
		arms = append(arms, arm{name: name, block: func(context.Context) (map[string]float64, time.Duration, error) {
			took := map[string]float64{}
			order.Seed++ // other addresses each turn, the same for all arms
			for _, part := range []struct {
				metric string
				kind   load.Kind
			}{{metricFresh, load.Fresh}, {metricAgain, load.Again}} {
				order.Kind = part.kind
				r, err := l.client.do(order)
				if err != nil {
					return nil, 0, err
				}
				took[part.metric] = float64(r.Mean)
			}
			used, err := l.used()
			return took, used, err
		}})
	}
	return s.run(ctx, trial, arms, p)
}

// handicap is what a control wastes in each operation of an arm.
func (s *session) handicap(name string) time.Duration {
	if s.Control == SlowAgain && name == Again || s.Control == SlowMesh && (name == Mesh || name == Checked) {
		return 10 * time.Microsecond
	}
	return 0
}
