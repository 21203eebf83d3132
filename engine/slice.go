// SPDX-License-Identifier: Apache-2.0

package engine

import "slices"

// usable returns s without the endpoints that cannot be, which are reported: the others must not wait for them. It is s
// itself if nothing is wrong, for there are 100,000 endpoints and sources keep them, too.
func usable(name string, s *Slice) (*Slice, []error) {
	var errs []error
	kept := s.Endpoints
	for i := range s.Endpoints {
		err := s.check(i)
		switch {
		case err != nil && errs == nil:
			kept = slices.Clone(s.Endpoints[:i])
			fallthrough
		case err != nil:
			errs = append(errs, err)
		case errs != nil:
			kept = append(kept, s.Endpoints[i])
		}
	}
	if errs == nil && s.Name == name {
		return s, nil
	}
	c := *s
	c.Name, c.Endpoints = name, kept
	return &c, errs
}

// check says why an endpoint cannot be.
func (s *Slice) check(i int) error {
	switch a := s.Endpoints[i].Address.Unmap(); {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast():
		return invalid(Slices, s.Name, s.Origin, "endpoint %d: address %s is not one that can be dialled", i,
			s.Endpoints[i].Address)
	case a.Zone() != "":
		return invalid(Slices, s.Name, s.Origin, "endpoint %d: address %s has a zone, which means nothing on another machine",
			i, s.Endpoints[i].Address)
	}
	return nil
}

// target returns the port of s that stands behind a service port, 0 if it has none.
func (s *Slice) target(port *ServicePort) uint16 {
	for i := range s.Ports {
		if p := &s.Ports[i]; p.Name == port.Name && p.Protocol == port.Protocol {
			return p.Port
		}
	}
	return 0
}
