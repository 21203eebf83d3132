// SPDX-License-Identifier: Apache-2.0

package sample

import (
	"math/rand/v2"
	"testing"
)

// The interval must hold the true median about as often as it says, on skewed samples such as times are.
func TestMedianCovers(t *testing.T) {
	const trials, rounds, median = 200, 31, 1.0
	random := rand.New(rand.NewPCG(1, 2))
	covered := 0
	for i := range trials {
		samples := make([]float64, rounds)
		for j := range samples {
			x := random.NormFloat64()
			samples[j] = median + 0.02*x
			if x > 0 {
				samples[j] += 0.1 * x * x // a long tail to one side leaves the median where it is
			}
		}
		got := Median(samples, uint64(i))
		if got.Low > got.Value || got.Value > got.High {
			t.Fatalf("%+v is not in order", got)
		}
		if got.Low <= median && median <= got.High {
			covered++
		}
	}
	if covered < trials*90/100 {
		t.Errorf("covered %d of %d times, want about 95 %%", covered, trials)
	}
	if covered == trials {
		t.Errorf("covered every time: intervals are too wide to say anything")
	}
}

func TestMedianIsReproducible(t *testing.T) {
	samples := []float64{5, 1, 4, 2, 3, 9}
	a, b := Median(samples, 7), Median(samples, 7)
	if a != b {
		t.Errorf("the same seed gave %+v and %+v", a, b)
	}
	if a.Value != 3.5 {
		t.Errorf("median of an even number is %v, want 3.5", a.Value)
	}
	if one := Median([]float64{4}, 1); one != (Interval{4, 4, 4}) {
		t.Errorf("of one sample %+v", one)
	}
	if samples[0] != 5 {
		t.Error("the samples were changed")
	}
}

func TestQuantile(t *testing.T) {
	var samples []float64
	for i := range 100 {
		samples = append(samples, float64(99-i))
	}
	for q, want := range map[float64]float64{0: 0, 0.5: 50, 0.99: 99, 1: 99} {
		if got := Quantile(samples, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		target    Target
		low, high float64
		want      Answer
	}{
		{Target{AtMost, 1.01}, 0.99, 1.01, Yes},
		{Target{AtMost, 1.01}, 0.99, 1.0101, Undecided},
		{Target{AtMost, 1.01}, 1.0101, 1.2, No},
		{Target{AtLeast, 0.98}, 0.98, 1.1, Yes},
		{Target{AtLeast, 0.98}, 0.97, 1.1, Undecided},
		{Target{AtLeast, 0.98}, 0.9, 0.979, No},
		{Target{Above, 1}, 1.001, 1.1, Yes},
		{Target{Above, 1}, 1, 1.1, Undecided},
		{Target{Above, 1}, 0.9, 1, No},
		{Target{AtMost, 0}, 0, 0, Yes},
	} {
		// The value lies where it may: only the interval counts.
		for _, value := range []float64{c.low, c.high} {
			if got := c.target.Judge(Interval{value, c.low, c.high}); got != c.want {
				t.Errorf("%v, %v to %v: %v, want %v", c.target, c.low, c.high, got, c.want)
			}
		}
	}
}

func TestPairs(t *testing.T) {
	if r := Ratios([]float64{2, 9}, []float64{4, 3}); r[0] != 0.5 || r[1] != 3 {
		t.Error(r)
	}
	if d := Differences([]float64{2, 9}, []float64{4, 3}); d[0] != -2 || d[1] != 6 {
		t.Error(d)
	}
}
