// SPDX-License-Identifier: Apache-2.0

// Package graph draws a lab: as Mermaid or Graphviz text, or as one HTML file with the drawing in it. The command line
// calls it with what netsim says about a lab. It never looks at the lab itself, and what it writes loads nothing.
package graph

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/evenkeel/evenkeel/netsim"
)

// The formats.
const (
	Mermaid = "mermaid"
	Dot     = "dot"
	HTML    = "html"
)

// Formats returns all of them.
func Formats() []string { return []string{Mermaid, Dot, HTML} }

// Write draws a lab in one of the formats.
func Write(w io.Writer, info netsim.Info, format string) error {
	var out bytes.Buffer
	switch format {
	case Mermaid:
		mermaid(&out, info)
	case Dot:
		dot(&out, info)
	case HTML:
		if err := page(&out, info); err != nil {
			return fmt.Errorf("draw lab %s: %w", info.Name, err)
		}
	default:
		return fmt.Errorf("draw lab %s: format %q is not known", info.Name, format)
	}
	if _, err := out.WriteTo(w); err != nil {
		return fmt.Errorf("draw lab %s: %w", info.Name, err)
	}
	return nil
}

// podsOf returns the pods of a node, in their order.
func podsOf(info netsim.Info, node string) []netsim.PodInfo {
	var pods []netsim.PodInfo
	for _, pod := range info.Pods {
		if pod.Node == node {
			pods = append(pods, pod)
		}
	}
	return pods
}

// title names a pod as a command would be given it.
func title(pod netsim.PodInfo) string {
	if pod.Namespace == "default" {
		return pod.Name
	}
	return pod.Namespace + "/" + pod.Name
}

// Names are DNS labels, so quotes are all that the text formats need.

func mermaid(out *bytes.Buffer, info netsim.Info) {
	fmt.Fprintln(out, "flowchart LR")
	for i, n := range info.Nodes {
		fmt.Fprintf(out, "  subgraph n%d[\"%s\"]\n", i, n.Name)
		fmt.Fprintf(out, "    n%dr([\"%s\"])\n", i, join(n.Addresses, "<br>"))
		for j, pod := range podsOf(info, n.Name) {
			fmt.Fprintf(out, "    n%dp%d[\"%s<br>%s\"]", i, j, title(pod), join(pod.Addresses, "<br>"))
			if pod.Enrolled {
				fmt.Fprint(out, ":::enrolled")
			}
			fmt.Fprintln(out)
		}
		fmt.Fprintln(out, "  end")
	}
	number := map[string]int{}
	for i, n := range info.Nodes {
		number[n.Name] = i
	}
	for _, w := range info.Wires {
		fmt.Fprintf(out, "  n%dr ---|\"%s, MTU %d\"| n%dr\n", number[w.Between[0]], w.Link, w.MTU, number[w.Between[1]])
	}
	fmt.Fprintln(out, "  classDef enrolled stroke:#0a7d5a,stroke-width:2px")
}

func dot(out *bytes.Buffer, info netsim.Info) {
	fmt.Fprintf(out, "graph %q {\n  rankdir=LR; node [shape=box, style=rounded, fontname=\"sans-serif\"];\n", info.Name)
	for i, n := range info.Nodes {
		fmt.Fprintf(out, "  subgraph cluster_%d {\n    label=%q;\n", i, n.Name)
		fmt.Fprintf(out, "    %q [shape=oval, label=%q];\n", "node/"+n.Name, join(n.Addresses, "\n"))
		for _, pod := range podsOf(info, n.Name) {
			color := "gray50"
			if pod.Enrolled {
				color = "seagreen"
			}
			fmt.Fprintf(out, "    %q [label=%q, color=%s];\n", pod.Namespace+"/"+pod.Name,
				title(pod)+"\n"+join(pod.Addresses, "\n"), color)
		}
		fmt.Fprintln(out, "  }")
	}
	for _, w := range info.Wires {
		fmt.Fprintf(out, "  %q -- %q [label=\"%s, MTU %d\"];\n", "node/"+w.Between[0], "node/"+w.Between[1], w.Link, w.MTU)
	}
	fmt.Fprintln(out, "}")
}

func join[T fmt.Stringer](list []T, separator string) string {
	var texts []string
	for _, item := range list {
		texts = append(texts, item.String())
	}
	return strings.Join(texts, separator)
}
