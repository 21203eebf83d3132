// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"slices"
)

// buildWayBack builds the release before on the maps of the one after, whose sizes are the node's.
func (s *Store) buildWayBack(g, from *Generation, p *Plan, number uint16) (uint16, error) {
	o, err := s.object.resized(s.release)
	if err != nil {
		return 0, err
	}
	use := p.before(from, o)
	for name, m := range g.Maps {
		if o.spec.Maps[name] != nil && !slices.Contains(o.Private, name) {
			use[name] = m
		}
	}
	_, err = s.build(blueprint{object: o, number: number, use: use})
	return number, err
}

// resized is a release with the sizes of another, where the two have a map of one name.
func (o *object) resized(like *object) (*object, error) {
	plane := o.record.plane()
	for name := range plane.Sizes {
		if m := like.spec.Maps[name]; m != nil && !slices.Contains(o.Private, name) {
			plane.Sizes[name] = m.MaxEntries
		}
		if slices.Contains(o.Frozen, name) && slices.Contains(like.Frozen, name) {
			plane.Room[name] = like.record.Sizes[name]
		}
	}
	return readObject(plane)
}
