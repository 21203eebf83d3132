// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/evenkeel/evenkeel/netsim"
)

// labs draws labs that netsim could have made.
func labs(t *rapid.T) netsim.Info {
	info := netsim.Info{Name: "lab"}
	nodes := rapid.IntRange(1, 9).Draw(t, "nodes")
	for i := range nodes {
		info.Nodes = append(info.Nodes, netsim.NodeInfo{Name: fmt.Sprint("node", i),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i), 0, 1})},
			Agent:     netsim.AgentInfo{State: netsim.AgentNone}})
		for j := range rapid.IntRange(0, 60).Draw(t, "pods") {
			info.Pods = append(info.Pods, netsim.PodInfo{Namespace: "shop", Name: fmt.Sprintf("pod-%d-%d", i, j),
				Node: fmt.Sprint("node", i), Enrolled: j%2 == 0,
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i), 0, byte(j + 2)})}})
		}
	}
	for i := range nodes {
		for j := i + 1; j < nodes; j++ {
			if rapid.Bool().Draw(t, "wire") {
				info.Wires = append(info.Wires, netsim.WireInfo{Between: [2]string{fmt.Sprint("node", i), fmt.Sprint("node", j)},
					MTU: 1500, Link: fmt.Sprint("wire", len(info.Wires))})
			}
		}
	}
	return info
}

// Whatever the lab: boxes do not overlap, pods lie in the box of their node, and all lies in the drawing.
func TestLayoutKeepsThingsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		info := labs(t)
		d := layOut(info)
		pods := 0
		for i, a := range d.Nodes {
			if a.X < 0 || a.Y < 0 || a.X+a.Width > d.Width || a.Y+a.Height > d.Height {
				t.Fatalf("node %s leaves the drawing: %+v in %dx%d", a.Name, a, d.Width, d.Height)
			}
			for _, b := range d.Nodes[:i] {
				if a.X < b.X+b.Width && b.X < a.X+a.Width && a.Y < b.Y+b.Height && b.Y < a.Y+a.Height {
					t.Fatalf("nodes %s and %s overlap", a.Name, b.Name)
				}
			}
			for _, c := range append(append([]chip{}, a.Chips...), a.Dots...) {
				pods++
				if c.X < a.X || c.Y < a.Y+header || c.X+c.Width > a.X+a.Width || c.Y+c.Height > a.Y+a.Height {
					t.Fatalf("pod %s leaves node %s", c.Title, a.Name)
				}
			}
		}
		if pods != len(info.Pods) || len(d.Wires) != len(info.Wires) {
			t.Fatalf("%d of %d pods and %d of %d wires are drawn", pods, len(info.Pods), len(d.Wires), len(info.Wires))
		}
		for _, w := range d.Wires {
			if w.TextX < 0 || w.TextX > d.Width || w.TextY < 0 || w.TextY > d.Height {
				t.Fatalf("the text of wire %s leaves the drawing", w.Link)
			}
		}
	})
}

func small() netsim.Info {
	address := netip.MustParseAddr
	return netsim.Info{Name: "demo",
		Nodes: []netsim.NodeInfo{
			{Name: "a", Addresses: []netip.Addr{address("10.1.0.1")},
				Agent: netsim.AgentInfo{State: netsim.AgentRunning, PID: 7}},
			{Name: "b", Addresses: []netip.Addr{address("10.2.0.1")},
				Agent: netsim.AgentInfo{State: netsim.AgentDead, PID: 8}}},
		Wires: []netsim.WireInfo{{Between: [2]string{"a", "b"}, MTU: 1400, Link: "wire0"}},
		Pods: []netsim.PodInfo{
			{Namespace: "default", Name: "web-0", Node: "a", Enrolled: true, Addresses: []netip.Addr{address("10.1.0.2")}},
			{Namespace: "shop", Name: "web-1", Node: "b", Refusal: `a <sidecar> & "more"`,
				Addresses: []netip.Addr{address("10.2.0.2")}}},
	}
}

func TestFormats(t *testing.T) {
	want := map[string][]string{
		Mermaid: {"flowchart LR", `subgraph n0["a"]`, `n1p0["shop/web-1<br>10.2.0.2"]`, `n0r ---|"wire0, MTU 1400"| n1r`},
		Dot:     {`graph "demo" {`, `subgraph cluster_0`, `"node/a" -- "node/b" [label="wire0, MTU 1400"];`},
		HTML:    {"<svg", "wire0 · MTU 1400", "web-0", "shop/web-1", "process 8", "a &lt;sidecar&gt; &amp; &#34;more&#34;"},
	}
	for _, format := range Formats() {
		var out bytes.Buffer
		if err := Write(&out, small(), format); err != nil {
			t.Fatal(err)
		}
		for _, text := range want[format] {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s lacks %q:\n%s", format, text, &out)
			}
		}
	}
	if err := Write(io.Discard, small(), "png"); err == nil {
		t.Error("an unknown format is accepted")
	}
}

// The page stands alone: nothing in it makes a browser ask for something else, and its drawing is well-formed.
func TestPageStandsAlone(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, small(), HTML); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(out.String(), `xmlns="http://www.w3.org/2000/svg"`, "")
	for _, loads := range []string{"http:", "https:", "src=", "href=", "url(", "@import", "<script"} {
		if strings.Contains(text, loads) {
			t.Errorf("the page has %q", loads)
		}
	}
	_, drawing, _ := strings.Cut(text, "<svg")
	drawing, _, _ = strings.Cut(drawing, "</svg>")
	for decoder := xml.NewDecoder(strings.NewReader("<svg" + drawing + "</svg>")); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the drawing is not XML: %v", err)
		}
	}
}

func TestCutKeepsBothEnds(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"short", "short"}, {"exactly-10", "exactly-10"}, {"a-long-name-12", "a-lo…me-12"},
	} {
		if got := cut(10, c.text); got != c.want {
			t.Errorf("cut(10, %q) = %q, not %q", c.text, got, c.want)
		}
	}
}
