// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// Limits of a lab.
const (
	// MaxName is the length of the name of a lab or node: the path of an agent's socket has both, and a unix socket's
	// path has at most 107 bytes.
	MaxName = 30
	// MaxPods is the number of pods.
	MaxPods = 10_000
	// MaxNodes is the number of nodes.
	MaxNodes   = 250
	defaultMTU = 1500
	// minMTU is what IPv6 needs (RFC 8200, section 5), maxMTU what veth takes.
	minMTU, maxMTU = 1280, 65535
)

// maxProblems is how many mistakes are reported at once.
const maxProblems = 10

// checker collects what is wrong with a topology.
type checker struct {
	t        *Topology
	problems []error
	more     int // that are not in problems
}

// validate returns all mistakes, each with its line.
func (t *Topology) validate() error {
	c := checker{t: t}
	c.name("metadata.name", t.Name, MaxName)
	c.nodes()
	c.wires()
	c.dataplane()
	if len(c.problems) == 0 {
		c.pods()
	}
	if c.more > 0 {
		c.problems = append(c.problems, fmt.Errorf("and %d more", c.more))
	}
	return errors.Join(c.problems...)
}

// add reports a mistake in a field. A field that is not written has the line of what it is missing from.
func (c *checker) add(path, format string, args ...any) {
	if len(c.problems) == maxProblems {
		c.more++ // a file may have a million of them
		return
	}
	line, at := 0, path
	for line == 0 && at != "" {
		line = c.t.lines[at]
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	if line == 0 {
		line = c.t.lines[""]
	}
	c.problems = append(c.problems, &manifest.Error{File: c.t.File, Line: line,
		Object: strings.TrimSpace(Kind + " " + c.t.Name), Field: path, Reason: fmt.Sprintf(format, args...)})
}

// line is where a field was written, 0 if it was not: a number that is left out is 0, too.
func (c *checker) line(path string) int { return c.t.lines[path] }

// checkName returns an error if a lab cannot have that name: it becomes part of paths.
func checkName(name string) error {
	if reasons := validation.IsDNS1123Label(name); len(reasons) > 0 || len(name) > MaxName {
		return fmt.Errorf("name of lab %q: %w", name, errName)
	}
	return nil
}

var errName = fmt.Errorf("must be at most %d lower-case letters, digits and dashes", MaxName)

func (c *checker) name(path, name string, limit int) {
	switch reasons := validation.IsDNS1123Label(name); {
	case name == "":
		c.add(path, "is missing")
	case len(reasons) > 0:
		c.add(path, "%q: %s", name, reasons[0])
	case len(name) > limit:
		c.add(path, "%q is longer than %d characters", name, limit)
	}
}

func (c *checker) nodes() {
	if len(c.t.Nodes) == 0 || len(c.t.Nodes) > MaxNodes {
		c.add("spec.nodes", "a lab has 1 to %d nodes, not %d", MaxNodes, len(c.t.Nodes))
		return // each is compared with each
	}
	type claim struct {
		prefix netip.Prefix
		node   string
	}
	var taken []claim
	seen := map[string]int{}
	for i, n := range c.t.Nodes {
		path := fmt.Sprintf("spec.nodes[%d]", i)
		c.name(path+".name", n.Name, MaxName)
		if first, twice := seen[n.Name]; twice {
			c.add(path+".name", "node %s is already in line %d", n.Name, first)
		}
		seen[n.Name] = c.line(path)
		c.labels(path+".labels", n.Labels)
		if len(n.PodCIDRs) == 0 {
			c.add(path+".podCIDRs", "node %s needs one, or one per family", n.Name)
		}
		for j, p := range n.PodCIDRs {
			at := fmt.Sprintf("%s.podCIDRs[%d]", path, j)
			c.prefix(at, p)
			if j > 1 || j == 1 && p.Addr().Is4() == n.PodCIDRs[0].Addr().Is4() {
				c.add(at, "%s is the second of its family", p)
				break
			}
			for _, other := range taken {
				if p.IsValid() && other.prefix.Overlaps(p) {
					c.add(at, "%s and %s of node %s overlap", p, other.prefix, other.node)
				}
			}
			taken = append(taken, claim{p, n.Name})
		}
	}
}

// reserved are ranges that no pod can have an address of.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"), netip.MustParsePrefix("::/16"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

func (c *checker) prefix(path string, p netip.Prefix) {
	if !p.IsValid() {
		c.add(path, "is not a prefix, such as 10.10.1.0/24")
		return
	}
	if p != p.Masked() {
		c.add(path, "%s has bits behind the prefix: write %s", p, p.Masked())
		return
	}
	if room(p) < 1 {
		c.add(path, "%s has no address left for a pod", p)
	}
	for _, r := range reserved {
		if r.Overlaps(p) {
			c.add(path, "%s overlaps %s, which is not for pods", p, r)
		}
	}
}

func (c *checker) wires() {
	known := map[string]bool{}
	for _, n := range c.t.Nodes {
		known[n.Name] = true
	}
	seen := map[[2]string]int{}
	for i, w := range c.t.Wires {
		path := fmt.Sprintf("spec.wires[%d]", i)
		at := path + ".mtu"
		if (w.MTU != 0 || c.line(at) != 0) && (w.MTU < minMTU || w.MTU > maxMTU) {
			c.add(at, "%d is not between %d and %d bytes", w.MTU, minMTU, maxMTU)
		}
		if len(w.Between) != 2 {
			c.add(path+".between", "needs two nodes, not %d", len(w.Between))
			continue
		}
		for j, n := range w.Between {
			if !known[n] {
				c.add(fmt.Sprintf("%s.between[%d]", path, j), "there is no node %q", n)
			}
		}
		ends := w.ends()
		if ends[0] == ends[1] {
			c.add(path+".between", "a wire from %s to itself leads nowhere", ends[0])
		}
		if first, twice := seen[ends]; twice {
			c.add(path+".between", "%s and %s have a wire already, in line %d", ends[0], ends[1], first)
		}
		seen[ends] = c.line(path)
	}
}

// ends returns the two nodes of a wire, sorted.
func (w *WireSpec) ends() [2]string {
	return [2]string{min(w.Between[0], w.Between[1]), max(w.Between[0], w.Between[1])}
}

func (c *checker) labels(path string, labels map[string]string) {
	for key, value := range labels {
		if reasons := validation.IsQualifiedName(key); len(reasons) > 0 {
			c.add(path+"["+key+"]", "%q: %s", key, reasons[0])
		}
		if reasons := validation.IsValidLabelValue(value); len(reasons) > 0 {
			c.add(path+"["+key+"]", "%q: %s", value, reasons[0])
		}
	}
}

// serverSpec is an entry of serve.
type serverSpec struct {
	protocol string // http, tcp or udp
	port     uint16
}

// transport is what two servers of one address cannot share a port of.
func (s serverSpec) transport() string {
	if s.protocol == "http" {
		return "tcp"
	}
	return s.protocol
}

func parseServer(text string) (serverSpec, error) {
	protocol, address, _ := strings.Cut(text, " ")
	number, colon := strings.CutPrefix(strings.TrimSpace(address), ":")
	port, err := strconv.ParseUint(number, 10, 16)
	switch {
	case protocol != "http" && protocol != "tcp" && protocol != "udp", !colon, err != nil, port == 0:
		return serverSpec{}, fmt.Errorf("server %q is not of the form \"http :8080\", \"tcp :9000\" or \"udp :9001\"", text)
	}
	return serverSpec{protocol, uint16(port)}, nil
}
