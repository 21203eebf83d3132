// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSidecar(t *testing.T) {
	container := func(name, image string) corev1.Container { return corev1.Container{Name: name, Image: image} }
	web := container("web", "nginx")
	tests := []struct {
		name        string
		main, init  []corev1.Container
		annotations map[string]string
		want        string
	}{
		{name: "none", main: []corev1.Container{web}},
		{name: "istio", main: []corev1.Container{web, container("istio-proxy", "x")}, want: "istio-proxy"},
		{name: "native sidecar", main: []corev1.Container{web},
			init: []corev1.Container{container("linkerd-proxy", "x")}, want: "linkerd-proxy"},
		{name: "image", main: []corev1.Container{container("p", "docker.io/istio/proxyv2")}, want: "p"},
		{name: "image with tag", main: []corev1.Container{container("p", "reg:5000/istio/proxyv2:1.2")}, want: "p"},
		{name: "image with digest", main: []corev1.Container{
			container("p", "reg:5000/proxyv2:1.2@sha256:00")}, want: "p"},
		{name: "image without path", main: []corev1.Container{container("p", "proxyv2")}},
		{name: "other image", main: []corev1.Container{container("p", "reg:5000/x/proxyv2-tools")}},
		{name: "init is not a proxy", main: []corev1.Container{web},
			init: []corev1.Container{container("istio-init", "x/pilot")}},
		{name: "annotation", main: []corev1.Container{web},
			annotations: map[string]string{"sidecar.istio.io/status": ""}, want: "istio-proxy"},
	}
	for _, tt := range tests {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: tt.annotations},
			Spec: corev1.PodSpec{Containers: tt.main, InitContainers: tt.init}}
		if got := Sidecar(pod); got != tt.want {
			t.Errorf("%s: Sidecar = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestOtherMesh(t *testing.T) {
	const unset = "unset"
	tests := []struct{ pod, namespace, want string }{
		{unset, unset, ""},
		{"ambient", unset, "istio ambient"},
		{unset, "ambient", "istio ambient"},
		{"none", "ambient", ""},
		{"none", "kmesh", ""},
		{"kmesh", "ambient", "kmesh"},
		{"ambient", "kmesh", "istio ambient"},
		{"something", "kmesh", "kmesh"},
		{unset, "none", ""},
	}
	labels := func(mode string) metav1.ObjectMeta {
		if mode == unset {
			return metav1.ObjectMeta{}
		}
		return metav1.ObjectMeta{Labels: map[string]string{"istio.io/dataplane-mode": mode}}
	}
	for _, tt := range tests {
		pod, namespace := &corev1.Pod{ObjectMeta: labels(tt.pod)}, &corev1.Namespace{ObjectMeta: labels(tt.namespace)}
		if got := OtherMesh(pod, namespace); got != tt.want {
			t.Errorf("pod %s, namespace %s: OtherMesh = %q, want %q", tt.pod, tt.namespace, got, tt.want)
		}
	}
	if got := OtherMesh(&corev1.Pod{}, nil); got != "" {
		t.Errorf("without a namespace: %q", got)
	}
}
