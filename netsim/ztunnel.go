// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/evenkeel/evenkeel/netsim/ambient"
)

// ztunnelProgram prepares what a real ztunnel needs on a node, as Istio's control plane and CNI agent would, and returns
// how it is started: in a network namespace of its own, as in a cluster, because its own ports are fixed and a successor
// is there beside it. It is ready when it has taken all pods, which the hand-over says for it.
func (l *Lab) ztunnelProgram(n *nodeState) (program, error) {
	node := n.Spec.Name
	config, err := ambient.ReadConfig(l.proxyConfig(node))
	if err != nil {
		return program{}, err
	}
	mesh, err := config.Mesh.LocalXDS()
	if err != nil {
		return program{}, err
	}
	dir := l.paths.nodeDir(node)
	xds, socket := filepath.Join(dir, "ztunnel.yaml"), filepath.Join(dir, "zds.sock")
	if err := writeFile(xds, mesh); err != nil {
		return program{}, err
	}
	if err := l.startHandover(n, socket); err != nil {
		return program{}, fmt.Errorf("hand over pods to ztunnel: %w", err)
	}
	return program{
		line: []string{l.options.Binary, "sim", "isolate", "--", l.state.Ztunnel},
		env: []string{"PROXY_MODE=shared", "INPOD_UDS=" + socket, "NODE_NAME=" + node, "CLUSTER_ID=Kubernetes",
			"XDS_ADDRESS=", "LOCAL_XDS_PATH=" + xds, "FAKE_CA=true", "RUST_LOG=info,access=warn"},
	}, nil
}

// startHandover starts what gives ztunnels the namespaces of a node's pods, unless it runs.
func (l *Lab) startHandover(n *nodeState, socket string) error {
	if n.Handover != nil && n.Handover.Alive() {
		return nil
	}
	dir := l.paths.nodeDir(n.Spec.Name)
	log, err := os.OpenFile(filepath.Join(dir, "handover.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	if err := makeDirectory(l.paths.hostCgroup(n.Spec.Name), 0o755); err != nil {
		return err
	}
	cmd := exec.Command(l.options.Binary, "sim", "handover", "--config", l.proxyConfig(n.Spec.Name), "--socket", socket,
		"--notify", filepath.Join(dir, "notify.sock"))
	cmd.Stdout, cmd.Stderr = log, log
	child, err := startIn(l.paths.nodeNetns(n.Spec.Name), cmd, l.paths.hostCgroup(n.Spec.Name))
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n.Handover = &child.Process
	l.others = append(l.others, child)
	return nil
}
