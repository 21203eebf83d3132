// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Verdict is what was decided about a namespace, or about one pod in spite of its namespace.
type Verdict uint32

// The verdicts. The values are those of the pinned map.
const (
	Unsaid     Verdict = iota // nothing says that it should be in the mesh: it is left alone
	Mesh                      // it has to be in the mesh
	Off                       // it has to stay out
	OtherMesh                 // another mesh owns it
	Ineligible                // a rule forbids it: a sidecar, for one
)

var verdictNames = [...]string{Unsaid: "unsaid", Mesh: "mesh", Off: "off", OtherMesh: "other-mesh", Ineligible: "ineligible"}

func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict %d", uint32(v))
}

// MarshalText is String.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if name == string(text) {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("verdict %q is not known", text)
}

// Decision is a verdict and whom it is about.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	// Critical pods start although the mesh does not serve.
	Critical bool `json:"critical,omitempty"`
	// UID is that of the pod that was decided about, empty if that is not known. Another pod of its name, which may be
	// made any time, is another.
	UID string `json:"uid,omitempty"`
}

// Decisions by namespace ("shop") or pod ("shop/web-0"). That of a pod counts more than that of its namespace.
type Decisions map[string]Decision

// About decides about one pod.
func (d Decisions) About(namespace, name, uid string) Decision {
	decided, known := d[namespace+"/"+name]
	return choose(decided, known, uid, d[namespace])
}

// choose is the rule by which a pod's own decision goes before that of its namespace.
func choose(own Decision, known bool, uid string, namespace Decision) Decision {
	if known && (own.UID == "" || uid == "" || own.UID == uid) {
		return own
	}
	return namespace
}

// The pinned map, a frozen ABI: releases that differ work on it at once. Another form gets another name.
//
//	key    char name[320]: namespace, or namespace/pod, and zeros
//	value  u32 verdict, u32 flags (1: critical), char uid[64]; in host order
const (
	decisionsSuffix = "_decisions1"
	decisionsName   = "ek_decisions"
	maxDecisions    = 1 << 16
)

type decisionKey [320]byte

type decisionValue struct {
	Verdict uint32
	Flags   uint32
	UID     [maxUID + 1]byte
}

const flagCritical = 1

// DecisionsPin is where the decisions of a node are pinned: beside its data plane, whose tree is upgrade's alone.
func DecisionsPin(pinDir string) string { return pinDir + decisionsSuffix }

func decisionsFile(stateDir string) string { return filepath.Join(stateDir, "decisions.json") }

func keyOf(name string) (decisionKey, error) {
	var k decisionKey
	if len(name) >= len(k) {
		return k, fmt.Errorf("%s: its name is longer than %d bytes", name, len(k)-1)
	}
	copy(k[:], name)
	return k, nil
}

func valueOf(d Decision) (decisionValue, error) {
	v := decisionValue{Verdict: uint32(d.Verdict)}
	if len(d.UID) > maxUID {
		return v, fmt.Errorf("UID %s is longer than %d bytes", d.UID, maxUID)
	}
	copy(v.UID[:], d.UID)
	if d.Critical {
		v.Flags |= flagCritical
	}
	return v, nil
}

func (v decisionValue) decision() Decision {
	return Decision{Verdict: Verdict(v.Verdict), Critical: v.Flags&flagCritical != 0, UID: unix.ByteSliceToString(v.UID[:])}
}

// decide reads what was decided about a pod: in the pinned map or, where there is none because the node has booted and
// no agent has run yet, in the copy on disk. Without either nothing was decided.
func decide(c *Conf, p pod) (Decision, error) {
	m, err := ebpf.LoadPinnedMap(DecisionsPin(c.PinDir), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		all, err := readCopy(c.StateDir)
		return all.About(p.namespace, p.name, p.uid), err
	}
	if err != nil {
		return Decision{}, fmt.Errorf("open %s: %w", DecisionsPin(c.PinDir), err)
	}
	defer m.Close()
	own, known, err := lookup(m, p.String())
	if err != nil {
		return Decision{}, err
	}
	namespace, _, err := lookup(m, p.namespace)
	return choose(own, known, p.uid, namespace), err
}

func lookup(m *ebpf.Map, name string) (Decision, bool, error) {
	key, err := keyOf(name)
	if err != nil {
		return Decision{}, false, err
	}
	var v decisionValue
	err = m.Lookup(&key, &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Decision{}, false, nil
	}
	if err != nil {
		return Decision{}, false, fmt.Errorf("read map %s: %w", decisionsName, err)
	}
	return v.decision(), true, nil
}

// document is the copy on disk.
type document struct {
	Version int `json:"version"`
	// PinDir is the data plane that it belongs to.
	PinDir    string    `json:"pinDir"`
	Decisions Decisions `json:"decisions"`
}

const documentVersion = 1

func readCopy(stateDir string) (Decisions, error) {
	d, err := readDocument(stateDir)
	if err != nil || d == nil {
		return nil, err
	}
	return d.Decisions, nil
}

// readDocument returns nil if there is none.
func readDocument(stateDir string) (*document, error) {
	path := decisionsFile(stateDir)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if d.Version != documentVersion {
		return nil, fmt.Errorf("%s: it is of version %d, and this release reads %d", path, d.Version, documentVersion)
	}
	return &d, nil
}
