// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"fmt"

	yaml "go.yaml.in/yaml/v3"
)

// What ztunnel reads with LOCAL_XDS_PATH (LocalConfig in its src/xds/client.rs; unknown fields are refused).
type (
	localConfig struct {
		Workloads []localWorkload `yaml:"workloads"`
		Policies  []struct{}      `yaml:"policies"`
		Services  []localService  `yaml:"services"`
	}
	localWorkload struct {
		UID            string                       `yaml:"uid"`
		Name           string                       `yaml:"name"`
		Namespace      string                       `yaml:"namespace"`
		TrustDomain    string                       `yaml:"trustDomain"`
		ServiceAccount string                       `yaml:"serviceAccount"`
		WorkloadIPs    []string                     `yaml:"workloadIps"`
		Protocol       string                       `yaml:"protocol"` // HBONE or TCP
		Node           string                       `yaml:"node"`
		Network        string                       `yaml:"network"`
		Services       map[string]map[uint16]uint16 `yaml:"services"` // "namespace/hostname" -> port -> target port
	}
	localService struct {
		Name         string             `yaml:"name"`
		Namespace    string             `yaml:"namespace"`
		Hostname     string             `yaml:"hostname"`
		VIPs         []string           `yaml:"vips"` // "network/address"
		Ports        map[uint16]uint16  `yaml:"ports"`
		LoadBalancer *localLoadBalancer `yaml:"loadBalancer,omitempty"`
	}
	localLoadBalancer struct {
		RoutingPreferences []string `yaml:"routingPreferences"`
		Mode               string   `yaml:"mode"`
	}
)

// LocalXDS writes a mesh in the form that ztunnel reads in place of a control plane. Endpoints that are no workload are
// left out.
func (m *Mesh) LocalXDS() ([]byte, error) {
	c := localConfig{Workloads: []localWorkload{}, Policies: []struct{}{}, Services: []localService{}}
	for i := range m.Workloads {
		w := &m.Workloads[i]
		l := localWorkload{UID: fmt.Sprintf("Kubernetes//Pod/%s/%s", w.Namespace, w.Name), Name: w.Name, Namespace: w.Namespace,
			TrustDomain: TrustDomain, ServiceAccount: w.ServiceAccount, Protocol: "TCP", Node: w.Node,
			Services: map[string]map[uint16]uint16{}}
		if w.Captured {
			l.Protocol = "HBONE"
		}
		own := map[string]bool{}
		for _, a := range w.Addresses {
			l.WorkloadIPs = append(l.WorkloadIPs, a.String())
			own[a.String()] = true
		}
		for j := range m.Services {
			s := &m.Services[j]
			for _, p := range s.Ports {
				for _, e := range p.Endpoints {
					if !own[e.Addr().String()] {
						continue
					}
					name := s.Namespace + "/" + s.hostname()
					if l.Services[name] == nil {
						l.Services[name] = map[uint16]uint16{}
					}
					l.Services[name][p.Port] = e.Port()
				}
			}
		}
		c.Workloads = append(c.Workloads, l)
	}
	for i := range m.Services {
		s := &m.Services[i]
		l := localService{Name: s.Name, Namespace: s.Namespace, Hostname: s.hostname(), Ports: map[uint16]uint16{}}
		for _, a := range s.Addresses {
			l.VIPs = append(l.VIPs, "/"+a.String())
		}
		for _, p := range s.Ports {
			l.Ports[p.Port] = p.Port // the workloads say what it is there
		}
		if s.Local {
			l.LoadBalancer = &localLoadBalancer{[]string{"Node"}, "Strict"}
		}
		c.Services = append(c.Services, l)
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode mesh for ztunnel: %w", err)
	}
	return text, nil
}

func (s *Service) hostname() string {
	return fmt.Sprintf("%s.%s.svc.%s", s.Name, s.Namespace, TrustDomain)
}
