// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/evenkeel/evenkeel/engine/enrol"
)

// Type is the name of the plugin's binary, and what a configuration has as its type.
const Type = "evenkeel-cni"

// Where things of a node are, unless the configuration says otherwise.
const (
	DefaultPinDir   = "/sys/fs/bpf/evenkeel"
	DefaultStateDir = "/var/lib/evenkeel"
	DefaultRunDir   = "/run/evenkeel"
)

// Conf is what a configuration says to the plugin. Every member of its own may be left out. Keys that are not known are
// those of newer releases, and passed over.
type Conf struct {
	CNIVersion string `json:"cniVersion,omitempty"`
	Name       string `json:"name,omitempty"`
	Type       string `json:"type"`
	// PinDir is where the data plane is pinned, StateDir what is to outlast a reboot, RunDir what is not.
	PinDir   string `json:"pinDir,omitempty"`
	StateDir string `json:"stateDir,omitempty"`
	RunDir   string `json:"runDir,omitempty"`
	// Exempt are namespaces whose pods start although the mesh does not serve: those that a booting node needs.
	Exempt []string `json:"exempt,omitempty"`
	// SourceCheck drops packets that leave a pod with an address that is not its own; true where it is left out.
	SourceCheck *bool `json:"sourceCheck,omitempty"`

	// PrevResult is what the plugins before this one have made, as the runtime gave it.
	PrevResult json.RawMessage `json:"prevResult,omitempty"`
	// ValidAttachments are those that GC must leave alone.
	ValidAttachments json.RawMessage `json:"cni.dev/valid-attachments,omitempty"`
}

// parseConf reads a configuration. skel has looked at its name and version before.
func parseConf(data []byte) (*Conf, error) {
	c := &Conf{PinDir: DefaultPinDir, StateDir: DefaultStateDir, RunDir: DefaultRunDir}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the configuration cannot be read", err.Error())
	}
	for key, path := range map[string]string{"pinDir": c.PinDir, "stateDir": c.StateDir, "runDir": c.RunDir} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return nil, types.NewError(types.ErrInvalidNetworkConfig,
				fmt.Sprintf("%s %q: an absolute path without '.' and '..' is needed", key, path), "")
		}
	}
	return c, nil
}

func (c *Conf) sourceCheck() bool            { return c.SourceCheck == nil || *c.SourceCheck }
func (c *Conf) exempt(namespace string) bool { return slices.Contains(c.Exempt, namespace) }

// result is what ADD prints: what it was given, byte by byte, unless that is of another version of the specification.
func (c *Conf) result() ([]byte, error) {
	given := bytes.TrimSpace(c.PrevResult)
	if len(given) == 0 || bytes.Equal(given, []byte("null")) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			Type+" makes no interfaces: put it behind a plugin that does, in the same list of plugins", "prevResult is missing")
	}
	var stated struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(given, &stated); err != nil {
		return nil, badResult(err)
	}
	if stated.CNIVersion == "" { // a result may leave it out: it is that of the configuration
		stated.CNIVersion = c.CNIVersion
	}
	result, err := version.NewResult(stated.CNIVersion, given)
	if err != nil {
		return nil, badResult(err)
	}
	if stated.CNIVersion == c.CNIVersion {
		return given, nil
	}
	converted, err := result.GetAsVersion(c.CNIVersion)
	if err != nil {
		return nil, badResult(err)
	}
	var out bytes.Buffer
	if err := converted.PrintTo(&out); err != nil {
		return nil, badResult(err)
	}
	return out.Bytes(), nil
}

func badResult(err error) error {
	return types.NewError(types.ErrDecodingFailure, "prevResult, which the plugin before this one made, cannot be read",
		err.Error())
}

// pod is what the runtime says that a sandbox is for. Names are all that is believed of it.
type pod struct {
	namespace, name, uid string
}

func (p pod) String() string { return p.namespace + "/" + p.name }

// maxUID is the longest UID that a record or a decision holds.
const maxUID = 63

// parsePod reads the arguments of a Kubernetes runtime: K8S_POD_NAMESPACE=a;K8S_POD_NAME=b. It returns nil if the
// sandbox is none of Kubernetes's.
func parsePod(args string) (*pod, error) {
	given := make(map[string]string)
	for pair := range strings.SplitSeq(args, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			given[key] = value
		}
	}
	p := &pod{given["K8S_POD_NAMESPACE"], given["K8S_POD_NAME"], given["K8S_POD_UID"]}
	if p.namespace == "" && p.name == "" {
		return nil, nil
	}
	if err := enrol.CheckName(p.String()); err != nil {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS", err.Error())
	}
	if len(p.uid) > maxUID {
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables,
			fmt.Sprintf("CNI_ARGS: K8S_POD_UID is longer than %d bytes", maxUID), "")
	}
	return p, nil
}
