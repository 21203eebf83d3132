// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// serviceRanges are where the service addresses of all topologies of this suite come from.
var serviceRanges = []string{"10.96.0.0/16", "fd00:96::/64"}

// swallow makes a node answer for every service address, on these ports: what a connection meets that a data plane
// fails to refuse or to rewrite.
func swallow(ctx SpecContext, l *lab, node string, ports ...string) {
	GinkgoHelper()
	l.route(node, serviceRanges...)
	listener := start[report.Listening](ctx, l.Node(node), append([]string{"swallow"}, ports...)...)
	Eventually(ctx, listener.seen).ShouldNot(BeEmpty(), "the listener is up: %s", listener.stderr.Contents())
}

// route makes whole prefixes addresses of the node itself, as routes of type local do.
func (l *lab) route(node string, prefixes ...string) {
	GinkgoHelper()
	namespace, err := os.Open(filepath.Join(l.dir(), "ns", node))
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
		Expect(handle.RouteReplace(&route)).To(Succeed(), fmt.Sprintf("route %s to node %s itself", text, node))
	}
}
