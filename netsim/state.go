// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"time"
)

// stateVersion is the layout of state.json.
const stateVersion = "v1"

// state is what state.json holds: the specification that is in force and what was made of it.
type state struct {
	Version string    `json:"version"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Up is set once the lab is whole.
	Up bool `json:"up"`
	// Owner is the process that the lab belongs to; nil for one that outlives whoever made it.
	Owner *Process  `json:"owner,omitempty"`
	Agent AgentSpec `json:"agent"`
	// Dataplane and the ztunnel that it may need.
	Dataplane Dataplane `json:"dataplane"`
	Ztunnel   string    `json:"ztunnel,omitempty"`

	Nodes []*nodeState `json:"nodes"`
	Wires []*wireState `json:"wires,omitempty"`
	Pods  []*podState  `json:"pods,omitempty"`
}

type nodeState struct {
	Spec  NodeSpec `json:"spec"`
	Agent *Process `json:"agent,omitempty"`
	// Handover gives a ztunnel the namespaces of the node's pods.
	Handover *Process `json:"handover,omitempty"`
}

// wireState is a wire. Its number, unique in the lab, names the links at both ends.
type wireState struct {
	Number int       `json:"number"`
	Ends   [2]string `json:"ends"` // sorted
	MTU    int       `json:"mtu"`  // bytes
}

type podState struct {
	Spec PodSpec `json:"spec"`
	// Ordinal gives the addresses; see address.go. It is the node's for a pod on hostNetwork.
	Ordinal   int          `json:"ordinal"`
	Addresses []netip.Addr `json:"addresses"`
	Enrolled  bool         `json:"enrolled"`
	// Refusal is why a pod that should be enrolled is not.
	Refusal   string       `json:"refusal,omitempty"`
	Processes []podProcess `json:"processes,omitempty"`
}

// podProcess is a process that the lab started in a pod.
type podProcess struct {
	Process
	Command []string `json:"command"`
}

// file names the pod in file systems.
func (p *podState) file() string { return p.Spec.Namespace + "_" + p.Spec.Name }

func (s *state) node(name string) *nodeState {
	for _, n := range s.Nodes {
		if n.Spec.Name == name {
			return n
		}
	}
	return nil
}

// pod finds a pod by "namespace/name".
// idle are the nodes whose agent does not run.
func (s *state) idle() (nodes []*nodeState) {
	for _, n := range s.Nodes {
		if n.Agent == nil || !n.Agent.Alive() {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (s *state) pod(key string) *podState {
	for _, p := range s.Pods {
		if p.Spec.key() == key {
			return p
		}
	}
	return nil
}

// same tells whether two specifications are equal, empty and missing lists alike.
func same(a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	left, errLeft := json.Marshal(a)
	right, errRight := json.Marshal(b)
	return errLeft == nil && errRight == nil && string(left) == string(right)
}

// readState returns nil without an error if there is no state.
func readState(path string) (*state, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state of lab: %w", err)
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("read %s: layout %q is of another release: take the lab down with that release", path,
			s.Version)
	}
	s.Dataplane = cmp.Or(s.Dataplane, Evenkeel) // there was no other once
	return &s, nil
}

func (s *state) write(path string) error {
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return fmt.Errorf("encode state of lab %s: %w", s.Name, err)
	}
	return writeFile(path, append(text, '\n'))
}

// writeFile replaces a file so that readers see the old text or the new.
func writeFile(path string, text []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("publish file: %w", err)
	}
	return nil
}
