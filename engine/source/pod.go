// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"net/netip"
	"strconv"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WeightAnnotation on a Pod is its share of new connections relative to the other endpoints of a service, 0 to 65535.
const WeightAnnotation = "evenkeel.io/weight"

// defaultWeight is the weight of every endpoint that says nothing.
const defaultWeight = 1

// pod is what is kept of a Pod.
type pod struct {
	// workload has everything but OtherMesh, which the namespace has a say in.
	workload *engine.Workload
	// finished pods will never run again: their addresses may already belong to others.
	finished           bool
	ready, terminating bool
	weight             uint32
	// ports are the named container ports.
	ports []containerPort
	notes notes
}

type containerPort struct {
	name     string
	protocol engine.Protocol
	number   uint16
}

func newPod(p *corev1.Pod, origin string) *pod {
	out := &pod{
		workload: &engine.Workload{
			Name:           p.Namespace + "/" + p.Name,
			UID:            uid(p),
			Critical:       critical[p.Spec.PriorityClassName],
			ServiceAccount: p.Spec.ServiceAccountName,
			Node:           p.Spec.NodeName,
			Labels:         p.Labels,
			HostNetwork:    manifest.HostNetwork(p),
			Sidecar:        manifest.Sidecar(p),
			Origin:         origin,
		},
		finished:    p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		ready:       isReady(p),
		terminating: p.DeletionTimestamp != nil,
	}
	out.workload.Mesh = wish(p.Labels, &out.notes)
	out.addAddresses(&p.Status)
	out.addWeight(p.Annotations)
	out.addPorts(&p.Spec)
	return out
}

func isReady(p *corev1.Pod) bool {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (p *pod) addAddresses(status *corev1.PodStatus) {
	ips := status.PodIPs
	if len(ips) == 0 && status.PodIP != "" {
		ips = []corev1.PodIP{{IP: status.PodIP}}
	}
	for _, ip := range ips {
		if a, ok := p.notes.address("podIP", ip.IP); ok {
			p.workload.Addresses = append(p.workload.Addresses, a)
		}
	}
}

func (p *pod) addWeight(annotations map[string]string) {
	p.weight = defaultWeight
	text, set := annotations[WeightAnnotation]
	if !set {
		return
	}
	weight, err := strconv.ParseUint(text, 10, 16)
	switch {
	case errors.Is(err, strconv.ErrRange): // ParseUint returns the greatest
		p.notes.add("annotation %s: %s is above 65535: the weight is that", WeightAnnotation, text)
	case err != nil:
		p.notes.add("annotation %s: %q is not a whole number from 0 to 65535: the weight is %d",
			WeightAnnotation, text, defaultWeight)
		return
	}
	p.weight = uint32(weight)
}

// addPorts takes the containers in the order in which a named target port is looked up: the main ones, then init
// containers that stay (restartPolicy Always).
func (p *pod) addPorts(spec *corev1.PodSpec) {
	add := func(c *corev1.Container) {
		for _, port := range c.Ports {
			if protocol, ok := protocolOf(port.Protocol); ok && port.Name != "" {
				p.ports = append(p.ports, containerPort{port.Name, protocol, uint16(port.ContainerPort)})
			}
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; is(c.RestartPolicy, corev1.ContainerRestartPolicyAlways) {
			add(c)
		}
	}
}

// resolve returns the number behind a service's target port in this pod.
func (p *pod) resolve(t targetPort) (uint16, bool) {
	if t.named == "" {
		return t.number, true
	}
	for _, c := range p.ports {
		if c.name == t.named && c.protocol == t.protocol {
			return c.number, true
		}
	}
	return 0, false
}

// address returns the pod's address of a family.
func (p *pod) address(family corev1.IPFamily) (netip.Addr, bool) {
	for _, a := range p.workload.Addresses {
		if familyOf(a) == family {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// identified returns the addresses that stand for this pod alone.
func (p *pod) identified() []netip.Addr {
	if p.finished || p.workload.HostNetwork {
		return nil
	}
	return p.workload.Addresses
}

// in returns the workload as it is within its namespace, which may be nil; nil for a pod that has finished.
func (p *pod) in(n *namespace) *engine.Workload {
	if p.finished {
		return nil
	}
	w := *p.workload
	var object *corev1.Namespace
	if n != nil {
		object = n.object
	}
	w.OtherMesh = manifest.OtherMesh(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: w.Labels}}, object)
	return &w
}

// node is what is kept of a Node.
type node struct {
	*engine.Node
	addresses []netip.Addr
}

func newNode(n *corev1.Node, origin string) *node {
	out := &node{Node: &engine.Node{Name: n.Name, Zone: n.Labels[corev1.LabelTopologyZone], Origin: origin}}
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil { // the others are host names
			out.addresses = append(out.addresses, ip.Unmap())
		}
	}
	return out
}
