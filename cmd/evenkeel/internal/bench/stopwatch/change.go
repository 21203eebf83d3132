// SPDX-License-Identifier: Apache-2.0

package stopwatch

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/engine/source"
)

// changer replaces endpoints of the first service, one by one.
type changer struct {
	mesh    *mesh
	state   *source.State
	service netip.AddrPort
	// slices are those of the service. They are replaced, not changed: the state keeps what it is given.
	slices    []*discoveryv1.EndpointSlice
	endpoints int
	next      netip.Addr // address of the next new endpoint
	at        int        // endpoint that is replaced next, over all slices
}

// firstNew is where addresses of new endpoints begin: no cluster of the benchmark has them.
var firstNew = netip.MustParseAddr("11.0.0.0")

func newChanger(m *mesh, state *source.State, documents []manifest.Document) (*changer, error) {
	c := &changer{mesh: m, state: state, next: firstNew}
	name := ""
	for _, d := range documents {
		switch o := d.Object.(type) {
		case *corev1.Service:
			if name != "" {
				continue
			}
			address, err := netip.ParseAddr(o.Spec.ClusterIP)
			if err != nil {
				return nil, fmt.Errorf("service %s: %w", o.Name, err)
			}
			name, c.service = o.Name, netip.AddrPortFrom(address, uint16(o.Spec.Ports[0].Port))
		case *discoveryv1.EndpointSlice:
			if o.Labels[discoveryv1.LabelServiceName] == name {
				c.slices = append(c.slices, o)
				c.endpoints += len(o.Endpoints)
			}
		}
	}
	if c.endpoints == 0 {
		return nil, errors.New("the first service has no endpoints")
	}
	return c, nil
}

// run makes a number of changes.
func (c *changer) run(ctx context.Context, changes int) (Result, error) {
	r := Result{Took: make([]float64, 0, changes)}
	before := c.mesh.writes()
	for range changes {
		object, gone := c.replace()
		begin := time.Now()
		c.state.Upsert(object, "bench.yaml:1")
		change := c.state.Change()
		if err := c.mesh.engine.Apply(ctx, sourceName, change); err != nil {
			return r, err
		}
		took := time.Since(begin)
		c.state.Commit()
		r.Took = append(r.Took, took.Seconds())
		r.Seconds += took.Seconds()
		if err := c.confirm(ctx, gone); err != nil {
			return r, err
		}
	}
	r.Writes = c.mesh.writes() - before
	return r, nil
}

// replace returns a slice in which one endpoint is new, and the address that it has no longer.
func (c *changer) replace() (*discoveryv1.EndpointSlice, netip.Addr) {
	at := c.at % c.endpoints
	c.at++
	i := 0
	for at >= len(c.slices[i].Endpoints) {
		at -= len(c.slices[i].Endpoints)
		i++
	}
	object := c.slices[i].DeepCopy()
	gone := netip.MustParseAddr(object.Endpoints[at].Addresses[0])
	c.next = c.next.Next()
	object.Endpoints[at].Addresses = []string{c.next.String()}
	c.slices[i] = object
	return object, gone
}

// confirm connects until the service has led to the newest endpoint. Each of n endpoints is given with a chance of 1/n,
// so after 30 n connections it has been with all but certainty (e^-30).
func (c *changer) confirm(ctx context.Context, gone netip.Addr) error {
	for tried := 0; tried < 30*c.endpoints; {
		if err := ctx.Err(); err != nil {
			return err
		}
		given, err := draw(c.service, min(c.endpoints, maxSockets))
		if err != nil {
			return err
		}
		tried += len(given)
		seen := false
		for _, address := range given {
			switch address {
			case gone:
				return fmt.Errorf("connect to %v led to %v after that had been replaced", c.service, gone)
			case c.next:
				seen = true
			}
		}
		if seen {
			return nil
		}
	}
	return fmt.Errorf("%d connections to %v did not lead to the new endpoint %v", 30*c.endpoints, c.service, c.next)
}
