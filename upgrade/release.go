// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Role says what a generation is for.
type Role string

// The roles.
const (
	RolePlain   Role = ""        // it serves by itself
	RoleBridge  Role = "bridge"  // the programs of a release that also know the maps of the one before it
	RoleReverse Role = "reverse" // those of the release before, which also know the maps of the one after it: the way back
)

// Release is all that a generation is loaded from, as data, so that whichever agent comes next can load it again, build
// a bridge from or to it, and compare itself with it. Its digest is the generation's identity.
type Release struct {
	Hooks    []Hook   `json:"hooks"`
	Frozen   []string `json:"frozen"`
	Private  []string `json:"private"`
	Programs []string `json:"programs"`
	// Limits are how many entries of a frozen map may be used, where the map is made for more; see room.go. They come
	// before sizes for whoever reads no further, and are no part of the identity.
	Limits    map[string]uint32 `json:"limits,omitempty"`
	Sizes     map[string]uint32 `json:"sizes"`     // max_entries of every map
	Variables map[string][]byte `json:"variables"` // as the kernel is given them, but for the number
	Number    string            `json:"number"`    // see DataPlane.Number
	Stamps    string            `json:"stamps"`    // see DataPlane.Stamps
	Object    []byte            `json:"object"`    // ELF
	Label     string            `json:"-"`         // for people; no part of the identity
}

// record is a release as it is pinned, as gen/N/release, with what the generation is for.
type record struct {
	Role   Role      `json:"role,omitempty"`
	Target uint16    `json:"target,omitempty"` // of a bridge: the generation whose maps it fills, 0 if it is not made yet
	Source uint16    `json:"source,omitempty"` // of a bridge: the generation whose maps it empties
	Label  string    `json:"label,omitempty"`
	Pairs  []mapPair `json:"pairs,omitempty"` // of a bridge
	Release
}

// mapPair is a map that a bridge fills, and the one whose entries it takes over.
type mapPair struct {
	Target string `json:"target"`
	Source string `json:"source"`
}

// identity is the SHA-256 of a record without its label and its limits: what a release that knows of no limits reads in
// it. Equal ones have equal texts: encoding/json sorts keys.
func (r *record) identity() ([sha256.Size]byte, error) {
	nameless := *r
	nameless.Label, nameless.Limits = "", nil
	text, err := json.Marshal(&nameless)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("identify release: %w", err)
	}
	return sha256.Sum256(text), nil
}

// release makes data of a data plane whose object was read.
func (p *DataPlane) release(spec *ebpf.CollectionSpec) (Release, error) {
	r := Release{
		Hooks: p.Hooks, Frozen: p.Frozen, Private: p.Private, Programs: p.Programs, Number: p.Number, Stamps: p.Stamps,
		Object: p.Object,
		Sizes:  make(map[string]uint32), Variables: make(map[string][]byte), Label: p.Label,
	}
	configured := spec.Copy()
	if p.Configure != nil {
		if err := p.Configure(configured); err != nil {
			return Release{}, fmt.Errorf("configure: %w", err)
		}
	}
	for name, m := range configured.Maps {
		if !internal(name) {
			r.Sizes[name] = m.MaxEntries
		}
	}
	for _, name := range p.Frozen {
		r.bound(name, r.Sizes[name], p.Room[name])
	}
	for name, v := range configured.Variables {
		if v.Constant() && len(v.Value) > 0 {
			r.Variables[name] = v.Value
		}
	}
	return r, nil
}

// plane is the data plane that a recorded release describes.
func (r *Release) plane() DataPlane {
	variables := r.Variables
	return DataPlane{
		Object: r.Object, Hooks: r.Hooks, Frozen: r.Frozen, Private: r.Private, Programs: r.Programs, Number: r.Number,
		Stamps: r.Stamps, Sizes: r.allowed(), Room: maps.Clone(r.Sizes), Label: r.Label,
		Configure: func(spec *ebpf.CollectionSpec) error {
			for name, value := range variables {
				v := spec.Variables[name]
				if v == nil || int(v.Size()) != len(value) {
					return fmt.Errorf("the object has no variable %s of %d bytes", name, len(value))
				}
				v.Value = slices.Clone(value)
			}
			return nil
		},
	}
}

// numberAt finds the two bytes of a variable that hold the number of the generation.
func numberAt(spec *ebpf.CollectionSpec, path string) (*ebpf.VariableSpec, int, error) {
	name, member, _ := strings.Cut(path, ".")
	v := spec.Variables[name]
	if v == nil || v.Type == nil {
		return nil, 0, fmt.Errorf("the number of the generation belongs to variable %q, which the object does not have", name)
	}
	offset, t := 0, btf.UnderlyingType(v.Type.Type)
	if member != "" {
		all, _ := members(t)
		i := slices.IndexFunc(all, func(m btf.Member) bool { return m.Name == member })
		if i < 0 {
			return nil, 0, fmt.Errorf("variable %s has no member %q for the number of the generation", name, member)
		}
		offset, t = int(all[i].Offset.Bytes()), btf.UnderlyingType(all[i].Type)
	}
	if size, err := btf.Sizeof(t); err != nil || size != 2 {
		return nil, 0, fmt.Errorf("%s is not an integer of 2 bytes, for the number of the generation", path)
	}
	return v, offset, nil
}

// encode packs a record. Bytes are compressed: an object of 300 KiB takes 60 KiB of the kernel's memory.
func (r *record) encode() ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(z).Encode(r); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// maxRecord bounds what a pinned record may unpack to.
const maxRecord = 64 << 20

// usualRecord is room for most.
const usualRecord = 1 << 20

func decodeRecord(packed io.Reader) (*record, error) {
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, fmt.Errorf("unpack release: %w", err)
	}
	var text bytes.Buffer // read whole: a decoder that reads by pieces goes over the object's text once for each
	text.Grow(usualRecord)
	if _, err := text.ReadFrom(io.LimitReader(z, maxRecord)); err != nil {
		return nil, fmt.Errorf("unpack release: %w", err)
	}
	r := new(record)
	if err := json.Unmarshal(text.Bytes(), r); err != nil {
		return nil, fmt.Errorf("unpack release: %w", err)
	}
	r.Release.Label = r.Label
	return r, nil
}

// makeRecord puts a record into a map of its own, which nobody can write any more: the one form in which a BPF file
// system keeps bytes.
func makeRecord(r *record) (*ebpf.Map, error) {
	packed, err := r.encode()
	if err != nil {
		return nil, fmt.Errorf("record release: %w", err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "release", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(packed)), MaxEntries: 1,
	})
	if err == nil {
		if err = errors.Join(m.Put(uint32(0), packed), m.Freeze()); err == nil {
			return m, nil
		}
		m.Close()
	}
	return nil, fmt.Errorf("record release: %w", err)
}

// readRecord is what makeRecord wrote.
func readRecord(m *ebpf.Map) (*record, error) {
	packed, err := readPacked(m)
	if err != nil {
		return nil, err
	}
	return decodeRecord(packed)
}

// readPacked is the packed record in a map.
func readPacked(m *ebpf.Map) (*bytes.Reader, error) {
	if m.Type() != ebpf.Array || m.KeySize() != 4 || m.MaxEntries() != 1 || m.ValueSize() > maxRecord {
		return nil, fmt.Errorf("it is no release")
	}
	packed := make([]byte, m.ValueSize())
	if err := m.Lookup(uint32(0), &packed); err != nil {
		return nil, fmt.Errorf("read release: %w", err)
	}
	return bytes.NewReader(packed), nil
}

// ReadRelease reads a release from a file: one that `Release.Write` wrote.
func ReadRelease(from io.Reader) (*Release, error) {
	r, err := decodeRecord(io.LimitReader(from, maxRecord))
	if err != nil {
		return nil, err
	}
	if r.Role != RolePlain {
		return nil, fmt.Errorf("it is a %s, no release", r.Role)
	}
	return &r.Release, nil
}

// Plane is the data plane that the release is of.
func (r *Release) Plane() DataPlane { return r.plane() }

// Write packs a release for [ReadRelease].
func (r *Release) Write(to io.Writer) error {
	packed, err := (&record{Release: *r, Label: r.Label}).encode()
	if err != nil {
		return err
	}
	_, err = to.Write(packed)
	return err
}

// object reads a recorded release.
func (r *record) object(*view) (*object, error) { return readObject(r.plane()) }

// name is what people call the release.
func (r *record) name() string {
	if r.Label != "" {
		return r.Label
	}
	digest, err := r.identity()
	if err != nil {
		return "a release"
	}
	return shortDigest(digest)
}

// shortDigest is enough of an identity for people.
func shortDigest(digest [sha256.Size]byte) string { return fmt.Sprintf("%x", digest[:6]) }

// ReleaseOf is a data plane as data.
func ReleaseOf(p DataPlane) (*Release, error) {
	o, err := readObject(p)
	if err != nil {
		return nil, err
	}
	r := o.record.Release
	r.Label = p.Label
	return &r, nil
}

// Try loads a release with maps of its own and has it answer what it is asked, as [Store.Upgrade] does first.
func Try(ctx context.Context, p DataPlane) error {
	o, err := readObject(p)
	if err != nil {
		return err
	}
	return o.try(ctx)
}
