// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
)

// topology writes a Topology of that name around its spec.
func topology(name, spec string) string {
	return fmt.Sprintf("apiVersion: netsim.evenkeel.io/v1\nkind: Topology\nmetadata: {name: %s}\nspec:\n%s", name,
		strings.TrimLeft(spec, "\n"))
}

// oneNode and twoNodes end in the list of pods, for a file to go on with.
const (
	oneNode = `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  agent: {enabled: true}
  pods:
`
	twoNodes = `
  nodes:
  - {name: left, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"], labels: {topology.kubernetes.io/zone: west}}
  - {name: right, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"], labels: {topology.kubernetes.io/zone: east}}
  wires:
  - {between: [left, right]}
  agent: {enabled: true}
  pods:
`
)

// The ports of the servers that a pod of these topologies runs: serve: ["http :8080", "tcp :9000", "udp :9001"].
var (
	echoPorts = []string{"{name: tcp, port: 7, targetPort: 9000}", "{name: udp, port: 7, targetPort: 9001, protocol: UDP}"}
	webPorts  = append([]string{"{name: http, port: 80, targetPort: 8080}"}, echoPorts...)
	udpTarget = []string{"{name: udp, port: 9001, protocol: UDP}"} // of a slice
	udpPorts  = []string{"{name: udp, port: 7, targetPort: 9001, protocol: UDP}"}
)

// echoService selects the pods of the app of its name, TCP and UDP on port 7.
func echoService(name string, addresses ...string) service {
	return service{name: name, addresses: addresses, ports: echoPorts, more: []string{"selector: {app: " + name + "}"}}
}

// webService is an echoService that has HTTP on port 80, too.
func webService(name string, addresses ...string) service {
	return service{name: name, addresses: addresses, ports: webPorts, more: []string{"selector: {app: " + name + "}"}}
}

// udpService has UDP on port 7 and whatever its further fields say.
func udpService(name, address string, more ...string) service {
	return service{name: name, addresses: []string{address}, ports: udpPorts, more: more}
}
