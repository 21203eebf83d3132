// SPDX-License-Identifier: Apache-2.0

package record

import (
	"cmp"
	"math"
	"slices"
)

// baseline returns the worst lateness in the phases without a fault.
func (r *run) baseline() int64 {
	var worst int64
	for _, f := range r.flows {
		for _, late := range f.late {
			if r.faultFree(late.Due, late.Received) {
				worst = max(worst, late.Lateness)
			}
		}
	}
	if worst == 0 { // nothing was notable; what is smaller is known by window
		for _, w := range r.windows {
			if w.Worst < Notable && r.faultFree(w.From, w.To) {
				worst = max(worst, w.Worst)
			}
		}
	}
	return worst
}

// hasBaseline tells whether there were frames or attempts in a phase without a fault.
func (r *run) hasBaseline() bool {
	return slices.ContainsFunc(r.windows, func(w Window) bool {
		return w.Sent+w.Received > 0 && r.faultFree(w.From, w.To)
	})
}

// limit returns the smallest that a phase names.
func (r *run) limit() int64 {
	limit := int64(0)
	for _, p := range r.phases {
		if p.Limit > 0 && (limit == 0 || p.Limit < limit) {
			limit = p.Limit
		}
	}
	return cmp.Or(limit, LimitRestart)
}

// phaseAt returns the phase at t, an empty one before the first.
func (r *run) phaseAt(t int64) Phase {
	i, found := slices.BinarySearchFunc(r.phases, t, func(p Phase, t int64) int { return cmp.Compare(p.Time, t) })
	if !found {
		i--
	}
	if i < 0 {
		return Phase{}
	}
	return r.phases[i]
}

// faultFree tells whether a stretch lies within phases without a fault.
func (r *run) faultFree(from, to int64) bool {
	return r.phaseAt(from).FaultFree && !r.judged(from, to)
}

// judged tells whether a stretch touches a phase that is judged.
func (r *run) judged(from, to int64) bool {
	for i, p := range r.phases {
		end := int64(math.MaxInt64)
		if i+1 < len(r.phases) {
			end = r.phases[i+1].Time
		}
		if !p.FaultFree && from < end && to >= p.Time {
			return true
		}
	}
	return false
}
