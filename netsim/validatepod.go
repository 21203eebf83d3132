// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// pods checks the pods; nodes are known to be right.
func (c *checker) pods() {
	total := 0
	for i, p := range c.t.Pods {
		at := fmt.Sprintf("spec.pods[%d].count", i)
		if p.Count < 0 || p.Count > MaxPods || p.Count == 0 && c.line(at) != 0 {
			c.add(at, "%d is not between 1 and %d", p.Count, MaxPods)
			return
		}
		total += max(p.Count, 1)
	}
	if total > MaxPods {
		c.add("spec.pods", "a lab has at most %d pods, not %d", MaxPods, total)
		return
	}
	left := map[string]int{} // addresses by node
	for _, n := range c.t.Nodes {
		left[n.Name] = n.room()
	}
	seen := map[string]int{}         // line of a pod
	hostPorts := map[string]string{} // "node tcp 80" -> pod
	for i, p := range c.t.Pods {
		path := fmt.Sprintf("spec.pods[%d]", i)
		c.podFields(path, p)
		room, known := left[p.Node]
		if !known {
			c.add(path+".node", "there is no node %q", p.Node)
			continue
		}
		if count := max(p.Count, 1); !p.HostNetwork {
			if room -= count; room < 0 {
				c.add(path+".count", "node %s has no address for %d of these pods: give it a wider podCIDR", p.Node,
					min(-room, count))
			}
			left[p.Node] = max(room, 0)
		}
		for _, pod := range p.expand() {
			if first, twice := seen[pod.key()]; twice {
				c.add(path+".name", "pod %s is already in line %d", pod.key(), first)
			}
			seen[pod.key()] = c.line(path)
			if p.HostNetwork {
				c.hostPorts(path, pod, hostPorts)
			}
		}
	}
}

// hostPorts refuses two pods that would listen on the same port of their node.
func (c *checker) hostPorts(path string, p PodSpec, taken map[string]string) {
	for j, text := range p.Serve {
		s, err := parseServer(text)
		if err != nil {
			continue // reported already
		}
		port := fmt.Sprintf("%s %s %d", p.Node, s.transport(), s.port)
		if other, twice := taken[port]; twice {
			c.add(fmt.Sprintf("%s.serve[%d]", path, j), "port %d of node %s belongs to pod %s, which is on hostNetwork, too",
				s.port, p.Node, other)
		}
		taken[port] = p.key()
	}
}

func (c *checker) podFields(path string, p PodSpec) {
	longest := p.expand()
	c.name(path+".name", longest[len(longest)-1].Name, validation.DNS1123LabelMaxLength)
	c.name(path+".namespace", p.Namespace, validation.DNS1123LabelMaxLength)
	c.labels(path+".labels", p.Labels)
	for key := range p.Annotations {
		if reasons := validation.IsQualifiedName(key); len(reasons) > 0 {
			c.add(path+".annotations["+key+"]", "%q: %s", key, reasons[0])
		}
	}
	if p.ServiceAccount != "" {
		if reasons := validation.IsDNS1123Subdomain(p.ServiceAccount); len(reasons) > 0 {
			c.add(path+".serviceAccount", "%q: %s", p.ServiceAccount, reasons[0])
		}
	}
	if p.Enrol && !c.t.Agent.Enabled {
		c.add(path+".enrol", "pods are enrolled by what an agent has set up: write agent: {enabled: true} or leave enrol out")
	}
	servers := map[string]bool{}
	for j, text := range p.Serve {
		at := fmt.Sprintf("%s.serve[%d]", path, j)
		s, err := parseServer(text)
		if err != nil {
			c.add(at, "%v", err)
			continue
		}
		if key := fmt.Sprint(s.transport(), s.port); servers[key] {
			c.add(at, "%s port %d is served already", s.transport(), s.port)
		} else {
			servers[key] = true
		}
	}
	c.containers(path, p)
	if len(p.Command) > 0 && p.Command[0] == "" {
		c.add(path+".command[0]", "names no program")
	}
	for j, word := range p.Command {
		if strings.ContainsRune(word, 0) {
			c.add(fmt.Sprintf("%s.command[%d]", path, j), "%q has a NUL, which no command line can have", word)
		}
	}
}

func (c *checker) containers(path string, p PodSpec) {
	names := map[string]bool{}
	for j, name := range p.Containers {
		at := fmt.Sprintf("%s.containers[%d]", path, j)
		c.name(at, name, validation.DNS1123LabelMaxLength)
		if names[name] {
			c.add(at, "container %s is there twice", name)
		}
		names[name] = true
	}
	ports := map[string]bool{}
	for j, port := range p.Ports {
		at := fmt.Sprintf("%s.ports[%d]", path, j)
		if port.ContainerPort < 1 || port.ContainerPort > 65535 {
			c.add(at+".containerPort", "%d is not between 1 and 65535", port.ContainerPort)
		}
		if port.Protocol != "" && port.Protocol != "TCP" && port.Protocol != "UDP" {
			c.add(at+".protocol", "%q is not TCP or UDP", port.Protocol)
		}
		if port.Name == "" {
			continue
		}
		if reasons := validation.IsValidPortName(port.Name); len(reasons) > 0 {
			c.add(at+".name", "%q: %s", port.Name, reasons[0])
		}
		if ports[port.Name] {
			c.add(at+".name", "port %s is there twice", port.Name)
		}
		ports[port.Name] = true
	}
}
