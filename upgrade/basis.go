// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"crypto/sha256"
	"fmt"
)

// fits looks, before a holder is killed for it, whether the release can go on from what is pinned. It writes nothing; what
// the holder is in the middle of may be refused, too. Where nothing serves there is nothing to fit.
func (o *object) fits(dir string, cgroup uint64, accept Accept) error {
	v, err := readView(tree(dir))
	if err != nil {
		return err
	}
	defer v.close()
	if v.super == nil || v.word().Serve() == 0 || v.super.phase().state() == phaseRemoving {
		return nil
	}
	if phase := v.super.phase(); !known(phase) {
		return &RefusedError{[]Change{{Name: "phase", Expected: "idle", Found: phase.String()}}}
	}
	if v.moving() {
		accept = AcceptAny
	}
	if err := o.measure(v); err != nil {
		return err
	}
	basis, err := v.basis(o, accept)
	if err != nil {
		return err
	}
	if _, err = examine(v, basis, cgroup); err != nil || accept != AcceptUpgrade {
		return err
	}
	return v.leadsTo(basis, o)
}

// leadsTo refuses a release that what serves cannot be upgraded to.
func (v *view) leadsTo(from, to *object) error {
	p, err := v.plan(from, to)
	if err == nil && len(p.Refusals) > 0 {
		err = &RefusedError{p.Refusals}
	}
	return err
}

// served reads the release that serves, nil if it is not known.
func (v *view) served() (*object, error) {
	g := v.generations[v.word().Serve()]
	if g == nil || g.record == nil {
		return nil, nil
	}
	o, err := g.record.object(v)
	if err != nil {
		return nil, fmt.Errorf("release of generation %d: %w", g.Number, err)
	}
	return o, nil
}

// differences are what tells the release that serves, whose digest is given, from another: sizes by map, if those are all.
func (v *view) differences(own *object, digest [sha256.Size]byte) []Change {
	at := generationPath(v.word().Serve())
	release := Change{Name: at, Expected: "release " + shortDigest(own.digest), Found: "release " + shortDigest(digest)}
	served, err := v.served()
	if served == nil || err != nil {
		return []Change{release} // it left nothing to compare with
	}
	var changes []Change
	wanted, had := own.record.allowed(), served.record.allowed()
	for _, name := range sortedKeys(wanted) {
		is, was := wanted[name], had[name]
		if is != was {
			changes = append(changes, Change{Name: join(at, "maps", name), Expected: fmt.Sprintf("one of %d", is),
				Found: fmt.Sprintf("one of %d", was), Entries: [2]uint32{is, was}})
		}
	}
	resized := served.record
	resized.Sizes = own.record.Sizes
	if same, err := resized.identity(); err != nil || same != own.digest {
		changes = append(changes, release)
	}
	return changes
}

// basis is the release that a tree is examined by, or what speaks against taking it over at all.
func (v *view) basis(own *object, accept Accept) (*object, error) {
	digest := v.super.digest(v.word().Serve())
	switch {
	case v.serves(own):
		return own, nil
	case accept == AcceptRelease:
		return nil, &RefusedError{v.differences(own, digest)}
	case accept == AcceptAny || accept == AcceptUpgrade:
		if o, err := v.served(); o != nil || err != nil {
			return o, err
		}
	}
	return own, nil
}
