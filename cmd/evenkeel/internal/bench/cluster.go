// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
)

// Scale is a number of services with so many endpoints each.
type Scale struct{ Services, Endpoints int }

// What a cluster of any scale dials and is sent to: consecutive addresses, one UDP port.
var (
	firstService  = netip.MustParseAddr("10.96.0.0")
	firstEndpoint = netip.MustParseAddr("10.128.0.0")
)

const (
	servicePort  = 53
	endpointPort = 5353
	// perSlice is how many endpoints Kubernetes puts into a slice.
	perSlice = 100
)

// nth returns the address that is n after a, an IPv4 address.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// WriteManifests writes the Services and EndpointSlices of a cluster, as kubectl prints them.
func (s Scale) WriteManifests(to io.Writer) error {
	w := bufio.NewWriter(to)
	for i := range s.Services {
		address := nth(firstService, i)
		fmt.Fprintf(w, `---
apiVersion: v1
kind: Service
metadata:
  name: service-%d
  namespace: bench
spec:
  clusterIP: %v
  clusterIPs:
  - %v
  ipFamilies:
  - IPv4
  ipFamilyPolicy: SingleStack
  ports:
  - name: dns
    port: %d
    protocol: UDP
    targetPort: %d
  type: ClusterIP
`, i, address, address, servicePort, endpointPort)
		for first := 0; first < s.Endpoints; first += perSlice {
			fmt.Fprintf(w, `---
addressType: IPv4
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  labels:
    kubernetes.io/service-name: service-%d
  name: service-%d-%d
  namespace: bench
ports:
- name: dns
  port: %d
  protocol: UDP
endpoints:
`, i, i, first/perSlice, endpointPort)
			for j := first; j < min(first+perSlice, s.Endpoints); j++ {
				n := i*s.Endpoints + j
				fmt.Fprintf(w, `- addresses:
  - %v
  conditions:
    ready: true
    serving: true
    terminating: false
  nodeName: node-%d
  targetRef:
    kind: Pod
    name: service-%d-%d
    namespace: bench
  zone: zone-%d
`, nth(firstEndpoint, n), n%100, i, j, n%3)
			}
		}
	}
	return w.Flush()
}

// writeFile writes the manifests of a cluster to a file.
func (s Scale) writeFile(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write manifests: %w", err)
	}
	defer file.Close()
	if err := s.WriteManifests(file); err != nil {
		return fmt.Errorf("write manifests to %s: %w", path, err)
	}
	return file.Close()
}
