// SPDX-License-Identifier: Apache-2.0

// Package sample turns repeated measurements into a value and an interval, and an interval into an answer. Package
// bench calls it; it knows nothing of what was measured.
package sample

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// resamples is how often Median draws.
const resamples = 10_000

// Interval is a value and the bounds that hold it with 95 % confidence.
type Interval struct {
	Value, Low, High float64
}

// Median returns the median of samples and its interval by the percentile bootstrap (Efron 1979): the median of as many
// draws with replacement, 10,000 times, of which the middle 95 % are kept. The same seed gives the same interval.
// samples must not be empty.
func Median(samples []float64, seed uint64) Interval {
	random := rand.New(rand.NewPCG(seed, uint64(len(samples))))
	sorted := slices.Sorted(slices.Values(samples))
	drawn := make([]int32, len(sorted)) // how often each was
	medians := make([]float64, resamples)
	for i := range medians {
		clear(drawn)
		for range sorted {
			drawn[random.IntN(len(sorted))]++
		}
		medians[i] = middleOf(sorted, drawn)
	}
	slices.Sort(medians)
	return Interval{Value: middle(sorted), Low: medians[resamples*25/1000], High: medians[resamples*975/1000-1]}
}

// middleOf returns the median of sorted samples each of which is there so many times, as many as there are in all.
func middleOf(sorted []float64, times []int32) float64 {
	n := int32(len(sorted))
	var low float64
	seen, found := int32(0), false
	for i, t := range times {
		seen += t
		if !found && seen > (n-1)/2 {
			low, found = sorted[i], true
		}
		if seen > n/2 {
			return (low + sorted[i]) / 2
		}
	}
	return low
}

// Middle returns the median of samples, which must not be empty.
func Middle(samples []float64) float64 { return middle(slices.Sorted(slices.Values(samples))) }

func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Quantile returns a quantile, 0 to 1, of samples: the smallest one that so many are not above.
func Quantile(samples []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Ratios divides a by b, pair by pair.
func Ratios(a, b []float64) []float64 {
	return combine(a, b, func(x, y float64) float64 { return x / y })
}

// Differences subtracts b from a, pair by pair.
func Differences(a, b []float64) []float64 {
	return combine(a, b, func(x, y float64) float64 { return x - y })
}

func combine(a, b []float64, f func(x, y float64) float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = f(a[i], b[i])
	}
	return out
}

// Answer says whether something is reached.
type Answer string

// The answers.
const (
	Yes       Answer = "yes"
	No        Answer = "no"
	Undecided Answer = "undecided"
)

// Target is what is to be reached: a value on one side of a bound.
type Target struct {
	Relation Relation
	Bound    float64
}

// Relation is between a value and a bound.
type Relation string

// The relations.
const (
	AtMost  Relation = "<="
	AtLeast Relation = ">="
	Above   Relation = ">"
)

// String returns "<= 1.01".
func (t Target) String() string { return fmt.Sprintf("%s %v", t.Relation, t.Bound) }

// Judge decides by the whole interval.
func (t Target) Judge(i Interval) Answer {
	low, high := t.holds(i.Low), t.holds(i.High)
	switch {
	case low && high:
		return Yes
	case !low && !high:
		return No
	}
	return Undecided
}

func (t Target) holds(v float64) bool {
	switch t.Relation {
	case AtMost:
		return v <= t.Bound
	case AtLeast:
		return v >= t.Bound
	}
	return v > t.Bound
}
