// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"math"

	"github.com/evenkeel/evenkeel/netsim"
)

// Measures of the drawing, in SVG user units (CSS pixels at scale 1).
const (
	margin     = 24
	gapX       = 150 // between boxes, where wires have their text
	gapY       = 70
	padding    = 14
	header     = 62 // name, addresses and agent of a node
	chipWidth  = 176
	chipHeight = 46
	chipGap    = 10
	dotSize    = 14 // pods of a node that has too many for chips
	dotGap     = 4
	mostChips  = 36
	dotsInRow  = 24
)

// drawing is a lab with every part in its place.
type drawing struct {
	Width, Height int
	Info          netsim.Info
	Nodes         []box
	Wires         []line
	Enrolled      int
}

// box is a node. Pods are chips with names, or dots where there are many.
type box struct {
	netsim.NodeInfo
	X, Y, Width, Height int
	Count               int
	Chips, Dots         []chip
}

type chip struct {
	netsim.PodInfo
	Title         string
	X, Y          int
	Width, Height int
}

// line is a wire: a path, and where its text goes.
type line struct {
	netsim.WireInfo
	Path         string
	TextX, TextY int
}

// layOut places nodes in a grid that is about as wide as it is high, each row as high as its highest box.
func layOut(info netsim.Info) drawing {
	d := drawing{Info: info}
	columns := int(math.Ceil(math.Sqrt(float64(len(info.Nodes)))))
	if len(info.Nodes) <= 3 {
		columns = len(info.Nodes)
	}
	for _, n := range info.Nodes {
		d.Nodes = append(d.Nodes, newBox(n, podsOf(info, n.Name)))
	}
	widths := make([]int, columns)
	for i := range d.Nodes {
		widths[i%columns] = max(widths[i%columns], d.Nodes[i].Width)
	}
	y := margin
	if d.bows(columns) {
		y += gapY // they are above the first row
	}
	for first := 0; first < len(d.Nodes); first += columns {
		row := d.Nodes[first:min(first+columns, len(d.Nodes))]
		x, height := margin, 0
		for i := range row {
			row[i].moveTo(x, y)
			x += widths[i] + gapX
			height = max(height, row[i].Height)
			d.Width = max(d.Width, row[i].X+row[i].Width+margin)
		}
		y += height + gapY
	}
	d.Height = y - gapY + margin
	for _, pod := range info.Pods {
		if pod.Enrolled {
			d.Enrolled++
		}
	}
	d.wire(columns)
	return d
}

// Letters is how many letters of the node's name fit beside the mark of its agent.
func (b box) Letters() int {
	const letter, mark = 9, 34 // of the bold face
	return (b.Width - padding - mark) / letter
}

func newBox(n netsim.NodeInfo, pods []netsim.PodInfo) box {
	b := box{NodeInfo: n, Count: len(pods)}
	if len(pods) <= mostChips {
		columns := max(1, min(2, len(pods)))
		rows := (len(pods) + columns - 1) / columns
		for i, pod := range pods {
			b.Chips = append(b.Chips, chip{PodInfo: pod, Title: title(pod), X: padding + i%columns*(chipWidth+chipGap),
				Y: header + i/columns*(chipHeight+chipGap), Width: chipWidth, Height: chipHeight})
		}
		b.Width = 2*padding + columns*(chipWidth+chipGap) - chipGap
		b.Height = header + max(rows*(chipHeight+chipGap)-chipGap, 0) + padding
		return b
	}
	rows := (len(pods) + dotsInRow - 1) / dotsInRow
	for i, pod := range pods {
		b.Dots = append(b.Dots, chip{PodInfo: pod, Title: title(pod), X: padding + i%dotsInRow*(dotSize+dotGap),
			Y: header + i/dotsInRow*(dotSize+dotGap), Width: dotSize, Height: dotSize})
	}
	b.Width = 2*padding + dotsInRow*(dotSize+dotGap) - dotGap
	b.Height = header + rows*(dotSize+dotGap) - dotGap + padding
	return b
}

func (b *box) moveTo(x, y int) {
	b.X, b.Y = x, y
	for _, list := range [][]chip{b.Chips, b.Dots} {
		for i := range list {
			list[i].X += x
			list[i].Y += y
		}
	}
}

// bows tells whether a wire of the first row leads over other boxes.
func (d *drawing) bows(columns int) bool {
	at := map[string]int{}
	for i, n := range d.Nodes {
		at[n.Name] = i
	}
	for _, w := range d.Info.Wires {
		i, j := at[w.Between[0]], at[w.Between[1]]
		if max(i, j) < columns && max(i, j)-min(i, j) > 1 {
			return true
		}
	}
	return false
}

// wire draws wires between the boxes: straight between neighbours, else in a bow around the boxes that are between.
func (d *drawing) wire(columns int) {
	at := map[string]int{}
	for i, n := range d.Nodes {
		at[n.Name] = i
	}
	for _, w := range d.Info.Wires {
		i, j := min(at[w.Between[0]], at[w.Between[1]]), max(at[w.Between[0]], at[w.Between[1]])
		a, b := &d.Nodes[i], &d.Nodes[j]
		l := line{WireInfo: w}
		switch across, down := j%columns-i%columns, j/columns-i/columns; {
		case down == 0 && across == 1:
			x, y := a.X+a.Width, a.Y+header/2
			l.Path = fmt.Sprintf("M%d %dH%d", x, y, b.X)
			l.TextX, l.TextY = (x+b.X)/2, y-8
		case down == 0: // over the boxes between
			x1, x2, y := a.X+a.Width/2, b.X+b.Width/2, a.Y
			l.Path = fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y, x1, y-gapY, x2, y-gapY, x2, y)
			l.TextX, l.TextY = (x1+x2)/2, y-gapY*3/4-6
		default: // from the lower edge of the one to the upper edge of the other
			x1, y1, x2, y2 := a.X+a.Width/2, a.Y+a.Height, b.X+b.Width/2, b.Y
			l.Path = fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1, y1+gapY, x2, y2-gapY, x2, y2)
			l.TextX, l.TextY = (x1+x2)/2, (y1+y2)/2
		}
		d.Wires = append(d.Wires, l)
	}
}
