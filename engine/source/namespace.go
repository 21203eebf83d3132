// SPDX-License-Identifier: Apache-2.0

package source

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
)

// MeshLabel on a Namespace takes all its pods into the mesh ("enabled") or leaves them out ("disabled"). On a Pod it
// does so with that one, whatever its namespace says.
const MeshLabel = "evenkeel.io/mesh"

// namespace is what is kept of a Namespace.
type namespace struct {
	object *corev1.Namespace // its metadata
	said   *engine.Namespace
	notes  notes
}

func newNamespace(n *corev1.Namespace, origin string) *namespace {
	out := &namespace{object: &corev1.Namespace{ObjectMeta: n.ObjectMeta}}
	out.said = &engine.Namespace{
		Name: n.Name, Mesh: wish(n.Labels, &out.notes), OtherMesh: manifest.OtherMesh(&corev1.Pod{}, out.object),
		Origin: origin,
	}
	return out
}

func wish(labels map[string]string, notes *notes) engine.Wish {
	switch value := labels[MeshLabel]; value {
	case "":
	case "enabled":
		return engine.InMesh
	case "disabled":
		return engine.OutOfMesh
	default:
		notes.add("label %s: %q is neither enabled nor disabled, and says nothing", MeshLabel, value)
	}
	return engine.NoWish
}

// critical are the classes of pods that Kubernetes itself needs.
var critical = map[string]bool{"system-node-critical": true, "system-cluster-critical": true}

// staticHash is on the copy that the API server has of a pod from a file of the kubelet's: that pod's own UID, by which
// the kubelet and the container runtime know it.
const staticHash = "kubernetes.io/config.hash"

func uid(p *corev1.Pod) string {
	if hash := p.Annotations[staticHash]; hash != "" {
		return hash
	}
	return string(p.UID)
}
