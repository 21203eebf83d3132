// SPDX-License-Identifier: Apache-2.0

package result

import (
	"cmp"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

const (
	minStep  = int64(250 * time.Millisecond) // as often as a client counts
	maxSteps = 400
	maxGaps  = 1000
)

// Draw reads the timeline of a run from its recordings. The run has been judged.
func (r *Run) Draw(files ...string) error {
	d := drawing{row: map[uint64]int{}, run: r}
	var ends []int64
	for _, file := range files {
		err := record.ReadFile(file, func(line any) error {
			switch line := line.(type) {
			case *record.Flow:
				d.row[line.ID] = -1
				d.flows = append(d.flows, *line)
			case *record.Window:
				d.windows = append(d.windows, *line)
				ends = append(ends, line.To)
			case *record.Late:
				d.late = append(d.late, *line)
			case *record.Done:
				for i, n := range line.Histogram {
					for len(d.histogram) <= i {
						d.histogram = append(d.histogram, 0)
					}
					d.histogram[i] += n
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, f := range d.flows {
		d.row[f.ID] = slices.IndexFunc(r.Report.Details, func(v record.FlowVerdict) bool {
			return v.Name == f.Name && v.To == f.To
		})
	}
	if len(ends) > 0 {
		d.end = slices.Max(ends)
	}
	r.Timeline = d.timeline()
	return nil
}

// drawing is what recordings say, before it is put into steps.
type drawing struct {
	run       *Run
	flows     []record.Flow
	row       map[uint64]int // by flow
	windows   []record.Window
	late      []record.Late
	histogram []uint64
	end       int64
}

func (d *drawing) timeline() *Timeline {
	t := &Timeline{Start: d.run.Start, Step: minStep, Histogram: d.histogram, Worst: make([][]int32, len(d.run.Report.Details))}
	span := max(d.end-t.Start, 0)
	for span/t.Step >= maxSteps {
		t.Step *= 2
	}
	for i := range t.Worst {
		t.Worst[i] = make([]int32, span/t.Step+1)
		for j := range t.Worst[i] {
			t.Worst[i][j] = -1
		}
	}
	for _, w := range d.windows {
		if w.Received == 0 {
			continue
		}
		// A window is longer than a step where there are many flows: it counts for all that it touches.
		for at := max(w.From, t.Start); at < w.To; at = t.Start + ((at-t.Start)/t.Step+1)*t.Step {
			d.put(t, w.Flow, at, w.Worst)
		}
	}
	for _, l := range d.late {
		d.put(t, l.Flow, l.Received, l.Lateness)
		if by := float64(l.Lateness) / 1e6; by > d.run.Report.Budget && d.row[l.Flow] >= 0 && !d.faultFree(l.Due) {
			t.Gaps = append(t.Gaps, Gap{Flow: d.row[l.Flow], Due: l.Due, By: by})
		}
	}
	slices.SortFunc(t.Gaps, func(a, b Gap) int { return cmp.Compare(b.By, a.By) })
	t.Gaps = t.Gaps[:min(len(t.Gaps), maxGaps)]
	return t
}

func (d *drawing) put(t *Timeline, flow uint64, at, lateness int64) {
	row, known := d.row[flow]
	if step := (at - t.Start) / t.Step; known && row >= 0 && at >= t.Start && step < int64(len(t.Worst[row])) {
		t.Worst[row][step] = max(t.Worst[row][step], int32(min(lateness/1000, 1<<31-1)))
	}
}

func (d *drawing) faultFree(at int64) bool {
	free := true // what is before the first phase is set-up
	for _, p := range d.run.Phases {
		if p.Time <= at {
			free = p.FaultFree
		}
	}
	return free
}
