// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"math"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
)

// Version is of the form of Document. Members may be added to it, none is removed or changes its meaning.
const Version = "v1"

// Document is all that a run has found.
type Document struct {
	Version string    `json:"version"`
	Release string    `json:"release"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Quick   bool      `json:"quick"`
	Machine Machine   `json:"machine"`
	// Seed is what all that is random was drawn from: bootstrap, order of addresses.
	Seed uint64   `json:"seed"`
	Rows []Result `json:"rows"`
	// Gates are the comparisons of no mesh with itself. One that is not OK makes its rows undecided.
	Gates []Gate `json:"gates"`
	// Problems say what kept rows from being measured.
	Problems []Problem `json:"problems"`
	// Trials are the measurements that rows were read from.
	Trials []Series `json:"trials"`
}

// Result is the value of one row. Value, Low and High are null if it could not be measured.
type Result struct {
	ID      string        `json:"id"`
	Unit    string        `json:"unit"`
	Value   *float64      `json:"value"`
	Low     *float64      `json:"low"`
	High    *float64      `json:"high"`
	ToReach string        `json:"to_reach"`
	OK      sample.Answer `json:"ok"`
	// Command measures this row again.
	Command string `json:"command"`
}

// Gate is the ratio of a metric of no mesh to the same in other pods, which should be 1.
type Gate struct {
	Trial  string   `json:"trial"`
	Metric string   `json:"metric"`
	Rows   []string `json:"rows"`
	Value  float64  `json:"value"`
	Low    float64  `json:"low"`
	High   float64  `json:"high"`
	OK     bool     `json:"ok"`
}

// Problem is why a row is undecided, beside its interval.
type Problem struct {
	Row    string `json:"row"`
	Reason string `json:"reason"`
}

// Series are the blocks of a trial. Values has for each metric and arm a number per round; void rounds are left out.
type Series struct {
	Trial string   `json:"trial"`
	Arms  []string `json:"arms"`
	// Void is how many rounds were thrown away because others used the machine. See Disturbed.
	Void int `json:"void"`
	// Disturbed is why this is not to be trusted: too few rounds were undisturbed, and void ones are among these.
	Disturbed string                          `json:"disturbed,omitempty"`
	Values    map[string]map[string][]float64 `json:"values"`
}

// Machine is what was measured on.
type Machine struct {
	Kernel      string   `json:"kernel"`
	CPU         string   `json:"cpu"`
	CPUs        int      `json:"cpus"`
	MemoryMiB   int      `json:"memoryMiB"`
	Hypervisor  bool     `json:"hypervisor"`
	Mitigations []string `json:"mitigations"`
	// Load is the load average of the last minute before the run began.
	Load float64 `json:"load"`
	Go   string  `json:"go"`
	// MTU is that of all links of the labs, in bytes.
	MTU int `json:"mtu"`
}

// Figure shows as many digits of a value as mean something.
func Figure(v float64, unit string) string {
	digits := 3
	switch abs := math.Abs(v); {
	case unit == unitRatio:
	case abs >= 100:
		digits = 0
	case abs >= 10:
		digits = 1
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// unitRatio is the unit of what has none.
const unitRatio = "ratio"
