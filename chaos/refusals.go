// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// The services of newMeshLab, by their last byte: 10.96.0.N and fd00:96::N.
const (
	emptyService = 10 // no endpoint is ready
	localService = 20 // internalTrafficPolicy Local, and no endpoint on the client's node
	farService   = 30 // a flow server on the other node
	nearService  = 40 // one on the client's node
	tlsService   = 50 // has one port, for TLS
)

// twoNodes has a client and a server on one node, and a server on the other.
const twoNodes = `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  wires: [{between: [a, b]}]
  agent: {enabled: true}
  pods:
  - {name: client, node: a, enrol: true}
  - {name: near, node: a, enrol: true, labels: {app: near}}
  - {name: far, node: b, enrol: true, labels: {app: far}}`

// newMeshLab is two nodes with agents of a build, and pods for flow servers. The server in the pod catch-all takes
// every connection to the service range that the data plane lets pass on the client's node: what must be refused is
// refused by the data plane or not at all. More pods may be given as in a topology file.
func newMeshLab(ctx SpecContext, build string, pods ...string) *netsim.Lab {
	GinkgoHelper()
	more := ""
	for _, pod := range append(pods, "{name: catch-all, node: a, hostNetwork: true}") {
		more += "\n  - " + pod
	}
	lab := newLabOf(ctx, build, twoNodes+more+"\n"+flowService("empty", emptyService, "nobody", wire.Protocols())+
		flowService("local", localService, "far", wire.Protocols(), "internalTrafficPolicy: Local")+
		flowService("far", farService, "far", wire.Protocols())+
		flowService("near", nearService, "near", wire.Protocols())+
		flowService("tls", tlsService, "far", []*wire.Protocol{wire.TLS}))
	takeServiceRange(lab.Node("a"))
	return lab
}

// flowService is a Service of both families with a port for each protocol.
func flowService(name string, number int, app string, protocols []*wire.Protocol, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  clusterIP: %s\n"+
		"  clusterIPs: [%s, %q]\n  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n  selector: {app: %s}\n",
		name, serviceIPv4(number), serviceIPv4(number), serviceIPv6(number), app)
	for _, line := range more {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	b.WriteString("  ports:\n")
	for _, p := range protocols {
		fmt.Fprintf(&b, "  - {name: %s, port: %d, protocol: %s}\n", p.Name, p.Port, strings.ToUpper(p.Network))
	}
	return b.String()
}

func serviceIPv4(number int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, 0, byte(number)}) }

func serviceIPv6(number int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd00:96::%d", number))
}

// takeServiceRange makes the service range addresses of a node itself.
func takeServiceRange(node *netsim.Node) { takeAddresses(node, "10.96.0.0/16", "fd00:96::/64") }

// takeAddresses makes prefixes addresses of a node itself.
func takeAddresses(node *netsim.Node, prefixes ...string) {
	GinkgoHelper()
	namespace, err := os.Open(node.Netns)
	Expect(err).NotTo(HaveOccurred())
	defer namespace.Close()
	handle, err := netlink.NewHandleAt(netns.NsHandle(namespace.Fd()), unix.NETLINK_ROUTE)
	Expect(err).NotTo(HaveOccurred())
	defer handle.Close()
	loopback, err := handle.LinkByName("lo")
	Expect(err).NotTo(HaveOccurred())
	for _, text := range prefixes {
		_, prefix, err := net.ParseCIDR(text)
		Expect(err).NotTo(HaveOccurred())
		route := netlink.Route{LinkIndex: loopback.Attrs().Index, Dst: prefix, Type: unix.RTN_LOCAL,
			Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST}
		Expect(handle.RouteReplace(&route)).To(Succeed(), "route %s to node %s", text, node.Name)
	}
}

// refused are the probes that must fail at every instant, whatever happens to the agents.
func refused() []flow.Spec {
	var probes []flow.Spec
	for _, c := range []struct {
		why     string
		service int
	}{
		{"no endpoint is ready", emptyService}, {"Local without a local endpoint", localService}, {"no such port", tlsService},
	} {
		for _, address := range []netip.Addr{serviceIPv4(c.service), serviceIPv6(c.service)} {
			for _, protocol := range []*wire.Protocol{wire.Stream, wire.UDP} {
				to := netip.AddrPortFrom(address, uint16(protocol.Port))
				probes = append(probes, flow.Spec{Name: fmt.Sprintf("%s, %s %s", c.why, protocol.Network, to), Kind: "probe",
					Must: record.MustFail, Protocol: protocol.Name, To: to})
			}
		}
	}
	return probes
}

// everyKind is a flow of every kind to the servers of both nodes, and probes that must pass.
func everyKind() []flow.Spec {
	var flows []flow.Spec
	for _, service := range []struct {
		name   string
		number int
	}{{"same node", nearService}, {"cross node", farService}} {
		for i, k := range flow.Kinds() {
			address := serviceIPv4(service.number)
			if i%2 == 1 {
				address = serviceIPv6(service.number)
			}
			s := flow.Spec{Name: k.Name + ", " + service.name, Kind: k.Name, To: k.Address(address)}
			if k.Name == "probe" {
				s.Must = record.MustPass
			}
			flows = append(flows, s)
		}
	}
	return flows
}

// A mesh to which nothing is done: every kind of flow is intact, and the probes say what is true. The build that lets a
// miss pass shows that they could say something else.
var _ = Describe("Flows through the mesh", Label("dataplane:evenkeel", "tier:smoke"), Ordered, ContinueOnFailure, func() {
	const limit = SpecTimeout(time.Minute)

	watched := func(ctx SpecContext, lab *netsim.Lab, flows []flow.Spec) *record.Report {
		GinkgoHelper()
		r := newRun("mesh")
		r.serve(ctx, lab.Pod("near"))
		r.serve(ctx, lab.Pod("far"))
		r.serve(ctx, lab.Pod("catch-all"))
		r.watch(ctx, lab.Pod("client"), &flow.Plan{Flows: flows})
		r.quiet(ctx, "nothing")
		during(ctx, time.Second)
		return r.judge()
	}

	It("are intact, and what must be refused is refused", func(ctx SpecContext) {
		undisturbed(ctx, newMeshLab(ctx, evenkeel()), "mesh", everyFlow, func(*run) { during(ctx, time.Second) })
	}, limit)

	It("are caught where a build lets a miss pass", Label("build:control"), func(ctx SpecContext) {
		lab := newMeshLab(ctx, binary("control/miss_passes/evenkeel"))
		report := watched(ctx, lab, refused())
		Expect(report.Details).To(HaveLen(len(refused())))
		for _, d := range report.Details {
			Expect(d.Reason).To(Equal(record.Allowed), "%+v", d)
			Expect(d.Wrong).To(Equal(d.Sent), "%+v", d)
		}
	}, limit)
})
