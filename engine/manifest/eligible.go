// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	dataplaneLabel = "istio.io/dataplane-mode"
	sidecarStatus  = "sidecar.istio.io/status"
	// proxyImage ends the image path of every build of Istio's proxy, whatever the registry.
	proxyImage = "/proxyv2"
)

// HostNetwork tells whether a pod shares its node's network namespace: it has no cookie and no address of its own.
func HostNetwork(pod *corev1.Pod) bool { return pod.Spec.HostNetwork }

// Sidecar returns the name of the proxy container that another mesh has put into a pod, "" if there is none. Such a
// proxy looks at the address that was dialled, so that must not be rewritten before it. Where only the injector's
// annotation is there, the answer is "istio-proxy".
func Sidecar(pod *corev1.Pod) string {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		i := slices.IndexFunc(list, func(c corev1.Container) bool {
			return c.Name == "istio-proxy" || c.Name == "linkerd-proxy" ||
				strings.HasSuffix(imagePath(c.Image), proxyImage)
		})
		if i >= 0 {
			return list[i].Name
		}
	}
	if _, injected := pod.Annotations[sidecarStatus]; injected {
		return "istio-proxy"
	}
	return ""
}

// imagePath cuts tag and digest off an image reference. A colon before the last slash is a registry's port.
func imagePath(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// OtherMesh returns the name of a sidecarless mesh that owns a pod, "" if none does. What the pod's own label says
// counts more than that of its namespace, which may be nil; "none" on the pod keeps it out of both.
func OtherMesh(pod *corev1.Pod, namespace *corev1.Namespace) string {
	mode := pod.Labels[dataplaneLabel]
	if mode == "none" {
		return ""
	}
	if mesh := meshOf(mode); mesh != "" || namespace == nil {
		return mesh
	}
	return meshOf(namespace.Labels[dataplaneLabel])
}

func meshOf(mode string) string {
	switch mode {
	case "ambient":
		return "istio ambient"
	case "kmesh":
		return "kmesh"
	}
	return ""
}
