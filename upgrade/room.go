// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"

	"github.com/cilium/ebpf"
)

// A frozen map is read by entry programs, which are attached once and never change, so it can never be made anew with
// another size. It is made with room for the most that there may ever be, where the data plane says how much that is,
// and what a release asks for is a limit that whoever writes the map keeps to. So the limit is a number of a release
// like any other: it goes up and down with a generation. Both are recorded, the size where it has always been, for
// releases that know of no limits and compare it with the map.

// roomy is a frozen map as it is made.
func (p *DataPlane) roomy(spec *ebpf.MapSpec) *ebpf.MapSpec {
	s := spec.Copy()
	s.MaxEntries = max(s.MaxEntries, p.Room[s.Name])
	return s
}

// within is what a release wants of a frozen map that is there: one that has more room will do.
func within(want *ebpf.MapSpec, m *ebpf.Map) *ebpf.MapSpec {
	s := want.Copy()
	s.MaxEntries = max(s.MaxEntries, m.MaxEntries())
	return s
}

// bound records a limit of a frozen map that has room for more, or is to have.
func (r *Release) bound(name string, limit, room uint32) {
	r.Sizes[name] = max(limit, room)
	delete(r.Limits, name)
	if limit == r.Sizes[name] {
		return
	}
	if r.Limits == nil {
		r.Limits = make(map[string]uint32)
	}
	r.Limits[name] = limit
}

// allowed are sizes, and limits where there are any.
func (r *Release) allowed() map[string]uint32 {
	all := maps.Clone(r.Sizes)
	maps.Copy(all, r.Limits)
	return all
}

// measure records the sizes of the frozen maps that there are, of whichever release: they are never made anew.
func (o *object) measure(v *view) (err error) {
	for _, name := range o.Frozen {
		if m := v.maps[name]; m != nil {
			o.record.bound(name, o.spec.Maps[name].MaxEntries, m.MaxEntries())
		}
	}
	o.digest, err = o.record.identity()
	return err
}

// serves reports whether a release is the one that serves, to the last limit.
func (v *view) serves(o *object) bool {
	n := v.word().Serve()
	if v.super.digest(n) != o.digest {
		return false
	}
	g := v.generations[n]
	return g == nil || g.record == nil || maps.Equal(g.record.Limits, o.record.Limits)
}

// limit is how many entries of a frozen map a generation allows, 0 where it keeps no record.
func (g *Generation) limit(name string) uint32 { return g.Sizes()[name] }

// Sizes are how many entries the generation's release allows in each map, or has room for: of a frozen map there may be
// more room. They are nil where no record is kept. The caller must not change them.
func (g *Generation) Sizes() map[string]uint32 {
	if g == nil || g.record == nil {
		return nil
	}
	return g.record.allowed()
}

// Sizes are how many entries the release that serves allows in each map, or has room for: of a frozen map there may be
// more room. They are nil where no record is kept.
func (w *Writer) Sizes() (map[string]uint32, error) {
	path := releasePath(w.serves)
	m, err := openPin[*ebpf.Map](w.Pods.tree, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer m.Close()
	packed, err := readPacked(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	sizes, err := sizesOf(packed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return sizes, nil
}

// sizesOf reads the sizes in a record and stops there: what comes after them is the object, hundreds of kilobytes, and
// who asks is a CNI plugin that a pod waits for.
func sizesOf(packed io.Reader) (map[string]uint32, error) {
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, fmt.Errorf("unpack release: %w", err)
	}
	d := json.NewDecoder(io.LimitReader(z, maxRecord))
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("unpack release: %w", err)
	}
	var r Release
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("unpack release: %w", err)
		}
		var to any = new(json.RawMessage)
		switch key {
		case "limits":
			to = &r.Limits
		case "sizes":
			to = &r.Sizes
		}
		if err := d.Decode(to); err != nil {
			return nil, fmt.Errorf("unpack release: %w", err)
		}
		if key == "sizes" { // limits come before
			return r.allowed(), nil
		}
	}
	return nil, errors.New("unpack release: it has no sizes")
}
