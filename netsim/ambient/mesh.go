// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
)

// TrustDomain is that of every identity here.
const TrustDomain = "cluster.local"

// Config is what the proxy of a node knows. It is read once: a process never sees another one.
type Config struct {
	Node string `json:"node"`
	// Authority is the directory of the lab's Authority.
	Authority string `json:"authority"`
	// Pods are those whose connections it holds.
	Pods []Pod `json:"pods"`
	Mesh Mesh  `json:"mesh"`
}

// Pod is a pod of the proxy's node.
type Pod struct {
	Workload
	// Netns is the path of its network namespace, Inode that of the namespace: a pod that was made anew is another.
	Netns string `json:"netns"`
	Inode uint64 `json:"inode"`
}

// Mesh is what there is in the whole lab.
type Mesh struct {
	Workloads []Workload `json:"workloads"`
	Services  []Service  `json:"services"`
}

// Workload is a pod, whether or not a proxy holds its connections.
type Workload struct {
	Namespace      string       `json:"namespace"`
	Name           string       `json:"name"`
	ServiceAccount string       `json:"serviceAccount"`
	Node           string       `json:"node"`
	Addresses      []netip.Addr `json:"addresses"`
	// Captured tells whether a proxy holds its connections.
	Captured bool `json:"captured,omitempty"`
}

// Identity returns the SPIFFE id of the workload's service account.
func (w *Workload) Identity() string {
	return fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", TrustDomain, w.Namespace, w.ServiceAccount)
}

// Service is a TCP service.
type Service struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Ports     []Port       `json:"ports"`
	// Local: only endpoints of the client's node (internalTrafficPolicy).
	Local bool `json:"local,omitempty"`
}

// Port is a port of a service and what is behind it.
type Port struct {
	Port      uint16           `json:"port"`
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
}

// ReadConfig reads what Config.Write has written.
func ReadConfig(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration of proxy: %w", err)
	}
	c := &Config{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("parse configuration of proxy %s: %w", path, err)
	}
	return c, nil
}

// Encode returns the text of the configuration; two that are equal have the same.
func (c *Config) Encode() ([]byte, error) {
	text, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode configuration of proxy %s: %w", c.Node, err)
	}
	return append(text, '\n'), nil
}

// directory finds workloads and services by address.
type directory struct {
	node      string
	workloads map[netip.Addr]*Workload
	services  map[netip.Addr]*Service
}

func newDirectory(c *Config) *directory {
	d := &directory{c.Node, map[netip.Addr]*Workload{}, map[netip.Addr]*Service{}}
	for i := range c.Mesh.Workloads {
		w := &c.Mesh.Workloads[i]
		for _, a := range w.Addresses {
			d.workloads[a] = w
		}
	}
	for i := range c.Mesh.Services {
		s := &c.Mesh.Services[i]
		for _, a := range s.Addresses {
			d.services[a] = s
		}
	}
	return d
}

// choose returns where a connection to an address goes: an endpoint that pick takes of those of the service, else the
// address itself.
func (d *directory) choose(to netip.AddrPort, pick func(n int) int) (netip.AddrPort, error) {
	s := d.services[to.Addr()]
	if s == nil {
		return to, nil
	}
	for _, p := range s.Ports {
		if p.Port != to.Port() {
			continue
		}
		var fit []netip.AddrPort
		for _, e := range p.Endpoints {
			if w := d.workloads[e.Addr()]; e.Addr().Is4() == to.Addr().Is4() && (!s.Local || w != nil && w.Node == d.node) {
				fit = append(fit, e)
			}
		}
		if len(fit) == 0 {
			return netip.AddrPort{}, fmt.Errorf("service %s/%s has no endpoint for port %d", s.Namespace, s.Name, p.Port)
		}
		return fit[pick(len(fit))], nil
	}
	return netip.AddrPort{}, fmt.Errorf("service %s/%s has no port %d", s.Namespace, s.Name, to.Port())
}
