// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"math"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// chiSquare returns the probability that counts deviate from shares as much as they do, or more, if they were drawn
// with these shares (Pearson's test). A count where the share is 0 has the probability 0. Shares need not add up to 1.
func chiSquare(counts []int, shares []float64) float64 {
	n, total := 0, 0.0
	for i := range counts {
		n += counts[i]
		total += shares[i]
	}
	statistic, cells := 0.0, 0
	for i, share := range shares {
		if share == 0 {
			if counts[i] > 0 {
				return 0
			}
			continue
		}
		expected := float64(n) * share / total
		statistic += (float64(counts[i]) - expected) * (float64(counts[i]) - expected) / expected
		cells++
	}
	if cells < 2 {
		return 1 // one possibility, and it was taken
	}
	return upperGamma(float64(cells-1)/2, statistic/2)
}

// upperGamma returns Q(a, x), the regularised upper incomplete gamma function, for a > 0 and x >= 0 to about 1e-12
// (DLMF 8.7.1 below a+1, the continued fraction 8.9.2 above, evaluated by Lentz's method).
func upperGamma(a, x float64) float64 {
	if x == 0 {
		return 1
	}
	logGamma, _ := math.Lgamma(a)
	factor := math.Exp(a*math.Log(x) - x - logGamma)
	if x < a+1 {
		term := 1 / a
		sum := term
		for n := 1; term > sum*1e-15; n++ {
			term *= x / (a + float64(n))
			sum += term
		}
		return 1 - factor*sum
	}
	const tiny = 1e-300
	b := x + 1 - a
	c, d := 1/tiny, 1/b
	fraction := d
	for i, delta := 1.0, 0.0; math.Abs(delta-1) > 1e-15 && i < 10_000; i++ {
		an := -i * (i - a)
		b += 2
		d = nonZero(an*d+b, tiny)
		c = nonZero(b+an/c, tiny)
		d = 1 / d
		delta = d * c
		fraction *= delta
	}
	return factor * fraction
}

func nonZero(x, tiny float64) float64 {
	if math.Abs(x) < tiny {
		return tiny
	}
	return x
}

var _ = Describe("The chi-square test of this suite", func() {
	DescribeTable("agrees with the tables of the distribution",
		func(degrees int, statistic, p float64) {
			Expect(upperGamma(float64(degrees)/2, statistic/2)).To(BeNumerically("~", p, 1e-6))
		},
		// Quantiles of NIST/SEMATECH e-Handbook 1.3.6.7.4, closed forms: Q(1/2, x) = erfc(sqrt x), Q(1, x) = exp(-x).
		Entry("1 degree, 5 %", 1, 3.841458821, 0.05),
		Entry("1 degree, closed form", 1, 10.0, math.Erfc(math.Sqrt(5))),
		Entry("2 degrees, closed form", 2, 9.0, math.Exp(-4.5)),
		Entry("4 degrees, closed form", 4, 7.0, math.Exp(-3.5)*(1+3.5)),
		Entry("10 degrees, 0.1 %", 10, 29.58829845, 0.001),
		Entry("100 degrees, 5 %", 100, 124.3421134, 0.05),
		Entry("100 degrees, 99 %", 100, 70.06489493, 0.99),
		Entry("nothing deviates", 3, 0.0, 1.0),
	)

	It("rejects a biased sample and accepts a fair one", func() {
		Expect(chiSquare([]int{50_100, 49_900}, []float64{1, 1})).To(BeNumerically(">", 0.5))
		Expect(chiSquare([]int{50_800, 49_200}, []float64{1, 1})).To(BeNumerically("<", 1e-6))
		Expect(chiSquare([]int{1, 99_999}, []float64{0, 1})).To(BeZero())
		Expect(chiSquare([]int{0, 100_000}, []float64{0, 1})).To(BeEquivalentTo(1))
	})
})
