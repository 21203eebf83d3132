// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Dataplane is what carries the connections of enrolled pods.
type Dataplane string

// The data planes of a lab. In those that are proxies, the process that holds the connections of a node's pods takes the
// place of its agent: it is started, killed and broken like one.
const (
	None     Dataplane = "none"     // neither agents nor enrolment, whatever the rest of the topology says
	Evenkeel Dataplane = "evenkeel" // the default
	Ambient  Dataplane = "ambient"  // netsim/ambient, a proxy per node
	Ztunnel  Dataplane = "ztunnel"  // Istio's, the binary of which is given
)

// Dataplanes returns all of them.
func Dataplanes() []Dataplane { return []Dataplane{None, Evenkeel, Ambient, Ztunnel} }

// redirects tells whether pods are enrolled by rules that lead their connections to a proxy.
func (d Dataplane) redirects() bool { return d == Ambient || d == Ztunnel }

// dataplane checks the data plane and what does not go with it.
func (c *checker) dataplane() {
	const path = "spec.dataplane"
	d := c.t.Dataplane
	if !slices.Contains(Dataplanes(), d) {
		var names []string
		for _, known := range Dataplanes() {
			names = append(names, string(known))
		}
		c.add(path, "%q is unknown: there are %s", d, strings.Join(names, ", "))
		return
	}
	if d.redirects() && !c.t.Agent.Enabled {
		c.add(path, "%s is a process on each node, as agents are: write agent: {enabled: true}", d)
	}
	if d == Ztunnel && len(c.t.Agent.Args) > 0 {
		c.add("spec.agent.args", "ztunnel has no arguments")
	}
}

// ZtunnelVariable is the environment variable that names a ztunnel where Options do not.
const ZtunnelVariable = "EVENKEEL_ZTUNNEL"

// ErrNoZtunnel is returned where a lab needs a ztunnel and none is given.
var ErrNoZtunnel = errors.New("data plane ztunnel needs a ztunnel: name the binary with --ztunnel or " + ZtunnelVariable)

// ztunnelFor returns the path of the ztunnel that a lab needs, empty if it needs none.
func (o Options) ztunnelFor(t *Topology) (string, error) {
	if t.Dataplane != Ztunnel {
		return "", nil
	}
	path := o.Ztunnel
	if path == "" {
		path = os.Getenv(ZtunnelVariable)
	}
	if path == "" {
		return "", ErrNoZtunnel
	}
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = exec.LookPath(path) // is it there, and a program?
	}
	if err != nil {
		return "", fmt.Errorf("find ztunnel: %w", err)
	}
	return path, nil
}
