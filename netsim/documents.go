// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	yaml "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Files of the agents' source that the lab writes; whoever runs the lab may add others.
const (
	nodesFile     = "nodes.yaml"
	podsFile      = "pods.yaml"
	documentsFile = "documents.yaml"
)

// manifests are the files of what the agents read, by name; one without a text is not to be there.
type manifests map[string][]byte

// encodeManifests makes what the agents read: Nodes and Pods as a cluster would show them, and the documents of the
// topology file. It reads what the plan has decided, and nothing that comes to be later.
func encodeManifests(s *state, documents string) (manifests, error) {
	nodes, err := encodeAll(s.Nodes, func(n *nodeState) any { return n.document() })
	if err != nil {
		return nil, err
	}
	pods, err := encodeAll(s.Pods, func(pod *podState) any { return pod.document(s) })
	if err != nil {
		return nil, err
	}
	return manifests{nodesFile: nodes, podsFile: pods, documentsFile: []byte(documents)}, nil
}

// write writes them to a directory. A file that does not change is not touched, and does not count. A directory that is
// not there yet appears with all of them: an agent that waits for it does not read half.
func (m manifests) write(dir string) (changed int, err error) {
	switch _, err := os.Lstat(dir); {
	case err == nil:
		return m.update(dir)
	case !errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("look for manifests: %w", err)
	}
	aside := dir + ".new"
	if err := os.RemoveAll(aside); err != nil { // of one that was interrupted
		return 0, fmt.Errorf("remove half of the manifests: %w", err)
	}
	if err := makeDirectory(aside, 0o755); err != nil {
		return 0, err
	}
	if changed, err = m.update(aside); err != nil {
		return changed, err
	}
	if err := os.Rename(aside, dir); err != nil {
		return changed, fmt.Errorf("publish manifests: %w", err)
	}
	return changed, nil
}

func (m manifests) update(dir string) (changed int, err error) {
	for name, text := range m {
		path := filepath.Join(dir, name)
		if len(bytes.TrimSpace(text)) == 0 {
			switch err := os.Remove(path); {
			case err == nil:
				changed++
			case !errors.Is(err, fs.ErrNotExist):
				return changed, fmt.Errorf("remove manifest: %w", err)
			}
			continue
		}
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
			continue
		}
		if err := writeFile(path, text); err != nil {
			return changed, err
		}
		changed++
	}
	return changed, nil
}

// encodeAll writes documents in the style that agents read fastest, which kubectl prints. The way by JSON that
// sigs.k8s.io/yaml takes writes the same and needs twice as long.
func encodeAll[T any](list []T, document func(T) any) ([]byte, error) {
	if len(list) == 0 {
		return nil, nil // the encoder takes it for an error to end before it began
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	encoder.CompactSeqIndent()
	for _, item := range list {
		tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(document(item))
		if err != nil {
			return nil, fmt.Errorf("encode manifest: %w", err)
		}
		if err := encoder.Encode(tree); err != nil {
			return nil, fmt.Errorf("encode manifest: %w", err)
		}
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return text.Bytes(), nil
}

func (n *nodeState) document() *corev1.Node {
	node := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: n.Spec.Name, Labels: map[string]string{corev1.LabelHostname: n.Spec.Name}},
	}
	for key, value := range n.Spec.Labels {
		node.Labels[key] = value
	}
	for _, prefix := range n.Spec.PodCIDRs {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, prefix.String())
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	for _, a := range n.Spec.addresses(nodeOrdinal) {
		node.Status.Addresses = append(node.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	node.Status.Addresses = append(node.Status.Addresses,
		corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.Spec.Name})
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return node
}

func (p *podState) document(s *state) *corev1.Pod {
	spec := &p.Spec
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: spec.Name, Namespace: spec.Namespace, Labels: spec.Labels,
			Annotations: spec.Annotations},
		Spec: corev1.PodSpec{NodeName: spec.Node, ServiceAccountName: spec.ServiceAccount, HostNetwork: spec.HostNetwork},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue},
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
		}},
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
	}
	names := spec.Containers
	if len(names) == 0 {
		names = []string{spec.Name}
	}
	for _, name := range names {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "evenkeel-sim"})
	}
	for _, port := range spec.Ports {
		pod.Spec.Containers[0].Ports = append(pod.Spec.Containers[0].Ports, corev1.ContainerPort{Name: port.Name,
			ContainerPort: int32(port.ContainerPort), Protocol: corev1.Protocol(port.Protocol)})
	}
	for _, a := range p.Addresses {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	pod.Status.PodIP = pod.Status.PodIPs[0].IP
	pod.Status.HostIP = s.node(spec.Node).Spec.addresses(nodeOrdinal)[0].String()
	return pod
}
