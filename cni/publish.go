// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Publisher writes decisions, on disk and pinned. A node has one, the agent's. What an earlier one has pinned stays in
// force until the first Publish.
type Publisher struct {
	pinDir, pin, stateDir string
	m                     *ebpf.Map // nil until it is pinned
	pinned                Decisions // what m has
	onDisk                Decisions // nil until it was read or written
}

// NewPublisher opens what is pinned already.
func NewPublisher(pinDir, stateDir string) (*Publisher, error) {
	p := &Publisher{pinDir: pinDir, pin: DecisionsPin(pinDir), stateDir: stateDir}
	m, err := ebpf.LoadPinnedMap(p.pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", p.pin, err)
	}
	if m.Type() != ebpf.Hash || m.KeySize() != uint32(len(decisionKey{})) || m.ValueSize() != valueSize {
		m.Close()
		return nil, fmt.Errorf("%s is not a map of decisions: remove it, and start the agent again", p.pin)
	}
	p.m = m
	if p.pinned, err = readPinned(m); err != nil {
		m.Close()
		return nil, err
	}
	return p, nil
}

const valueSize = 4 + 4 + maxUID + 1

// Close drops the descriptor. What was published stays.
func (p *Publisher) Close() error {
	if p.m == nil {
		return nil
	}
	return p.m.Close()
}

// Publish makes these the decisions. The first ones of a node are pinned when all of them are in the map; of later ones
// each is replaced by itself, whole. The copy on disk comes first: a node that reboots in between must not know less
// than its pods were promised.
func (p *Publisher) Publish(all Decisions) error {
	if len(all) > maxDecisions {
		return fmt.Errorf("%d decisions: there is room for %d", len(all), maxDecisions)
	}
	if p.onDisk == nil || !maps.Equal(p.onDisk, all) {
		if err := writeCopy(p.stateDir, document{documentVersion, p.pinDir, all}); err != nil {
			return fmt.Errorf("write decisions: %w", err)
		}
		p.onDisk = maps.Clone(all)
		if p.onDisk == nil {
			p.onDisk = Decisions{}
		}
	}
	if p.m == nil {
		return p.create(all)
	}
	return p.update(p.m, all)
}

func (p *Publisher) create(all Decisions) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: decisionsName, Type: ebpf.Hash, KeySize: uint32(len(decisionKey{})), ValueSize: valueSize,
		MaxEntries: maxDecisions, Flags: unix.BPF_F_NO_PREALLOC,
	})
	if err != nil {
		return fmt.Errorf("create map %s: %w", decisionsName, err)
	}
	p.pinned = nil
	if err := p.update(m, all); err != nil {
		m.Close()
		return err
	}
	if err := m.Pin(p.pin); err != nil {
		m.Close()
		return fmt.Errorf("pin %s: %w", p.pin, err)
	}
	p.m = m
	return nil
}

// update writes differences. What there is to come comes before what goes, for a pod's decision may be its namespace's
// from now on.
func (p *Publisher) update(m *ebpf.Map, all Decisions) error {
	if p.pinned == nil {
		p.pinned = Decisions{}
	}
	for name, d := range all {
		if was, known := p.pinned[name]; known && was == d {
			continue
		}
		key, err := keyOf(name)
		if err != nil {
			return err
		}
		value, err := valueOf(d)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := m.Put(&key, &value); err != nil {
			return fmt.Errorf("write map %s: %w", decisionsName, err)
		}
		p.pinned[name] = d
	}
	for name := range p.pinned {
		if _, stays := all[name]; stays {
			continue
		}
		key, err := keyOf(name)
		if err != nil {
			return err
		}
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("write map %s: %w", decisionsName, err)
		}
		delete(p.pinned, name)
	}
	return nil
}

func readPinned(m *ebpf.Map) (Decisions, error) {
	all := Decisions{}
	var key decisionKey
	var value decisionValue
	it := m.Iterate()
	for it.Next(&key, &value) {
		all[unix.ByteSliceToString(key[:])] = value.decision()
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read map %s: %w", decisionsName, err)
	}
	return all, nil
}

// ReadDecisions returns what is decided on a node.
func ReadDecisions(pinDir, stateDir string) (Decisions, error) {
	m, err := ebpf.LoadPinnedMap(DecisionsPin(pinDir), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return readCopy(stateDir)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", DecisionsPin(pinDir), err)
	}
	defer m.Close()
	return readPinned(m)
}

// Withdraw forgets the decisions of a data plane: nothing has to be in the mesh any more. What is gone already is no
// error, and a copy on disk that belongs to another data plane stays.
func Withdraw(pinDir, stateDir string) error {
	if err := os.Remove(DecisionsPin(pinDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path := decisionsFile(stateDir)
	if err := sweep(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d, err := readDocument(stateDir)
	if err != nil || d == nil || d.PinDir != pinDir {
		return err
	}
	return os.Remove(path)
}

func writeCopy(stateDir string, d document) error {
	if d.Decisions == nil {
		d.Decisions = Decisions{}
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	return Replace(decisionsFile(stateDir), append(text, '\n'), 0o600)
}
