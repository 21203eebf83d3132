// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// What comes up on a node that boots, in any order: the agent, a pod of the mesh, and one that may not wait for it.
const (
	bootAgent    = "agent"
	bootPod      = "meshed/app"
	bootCritical = "kube-system/dns"
)

// bootOrders are all of them.
func bootOrders() [][]string {
	return [][]string{
		{bootAgent, bootPod, bootCritical}, {bootAgent, bootCritical, bootPod}, {bootPod, bootAgent, bootCritical},
		{bootPod, bootCritical, bootAgent}, {bootCritical, bootAgent, bootPod}, {bootCritical, bootPod, bootAgent},
	}
}

// A boot takes processes, namespaces, pins, and directories like /run. What is on disk stays: what was decided, if there
// was an agent before.
var _ = Describe("A node that boots", func() {
	const to = "10.96.0.10:7"
	var l *lab
	var state string // on disk
	BeforeEach(func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		state = filepath.Join(dir, "state")
		l = newLab(ctx, byLabelIn(state, filepath.Join(dir, "run"))+`
  - {name: web, node: a, labels: {app: web}, serve: ["tcp :9000"]}
`)
		l.put("web", documents(service{name: "web", addresses: []string{"10.96.0.10"}, ports: echoPorts[:1],
			more: []string{"selector: {app: web}"}})+meshedNamespaces+
			"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system, labels: {evenkeel.io/mesh: enabled}}\n")
		l.expectPorts(ctx, "a", 1)
		swallow(ctx, l, "a", "7")
		Eventually(func() bool { return exists(filepath.Join(state, "decisions.json")) }).Should(BeTrue())
	})

	// boot brings one node up in an order, and returns when each pod is in the mesh.
	boot := func(ctx SpecContext, order []string) {
		GinkgoHelper()
		Expect(l.stopAgent(ctx, "a", syscall.SIGKILL)).NotTo(Succeed())
		Expect(l.evenkeel(ctx, "a", "uninstall", "--yes").code).To(BeZero())
		Expect(os.RemoveAll(l.pins("a") + "_decisions1")).To(Succeed())
		c := newChain(l, "a", "net", bridge(subnet4), strings.ReplaceAll(strings.ReplaceAll(ours, "DIR/state", state),
			"DIR/run", filepath.Join(filepath.Dir(state), "run")))
		Expect(os.RemoveAll(filepath.Join(filepath.Dir(state), "run"))).To(Succeed())
		pods := map[string]*sandbox{}
		waiting := map[string]<-chan error{}
		for _, what := range order {
			if what == bootAgent {
				l.startAgent(ctx, "a")
				continue
			}
			s := c.sandbox(what)
			pods[what] = s
			first := s.boots(ctx)
			if first == nil {
				continue
			}
			var said *types.Error
			Expect(errors.As(first, &said)).To(BeTrue(), "%s: %v", what, first)
			Expect(said.Code).To(Equal(types.ErrTryAgainLater), "%s: %v", what, first)
			Expect(what).NotTo(Equal(bootCritical), "the agent may need it: %v", first)
			later := make(chan error, 1)
			waiting[what] = later
			go func() { // as a kubelet does
				defer GinkgoRecover()
				for {
					err := s.boots(ctx)
					if err == nil || ctx.Err() != nil {
						later <- err
						return
					}
					select {
					case <-time.After(100 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}()
		}
		for what, later := range waiting {
			Eventually(ctx, later).WithTimeout(10*time.Second).Should(Receive(BeNil()), "%s starts once the mesh serves", what)
		}
		for what, s := range pods {
			Eventually(ctx, func() string { return l.reported(ctx, s, to) }).WithTimeout(10*time.Second).
				Should(Equal("ping"), "%s is in the mesh: order %v", what, order)
		}
		for what, s := range pods {
			l.drop(strings.ReplaceAll(what, "/", "-"))
			Expect(s.del(ctx)).To(Succeed())
			s.end()
		}
		Expect(c.leases()).To(BeEmpty())
	}

	It("has every pod in the mesh in the end, in whatever order agent and pods come up", func(ctx SpecContext) {
		for _, order := range bootOrders() {
			By(fmt.Sprint(order))
			boot(ctx, order)
		}
	})

	It("has so the first time as well, when nothing says yet who has to be in the mesh", func(ctx SpecContext) {
		for _, order := range bootOrders() {
			By(fmt.Sprint(order))
			Expect(os.RemoveAll(state)).To(Succeed(), "nothing was ever decided")
			boot(ctx, order)
		}
	})
})

// boots is a runtime's attempt to start a pod: ADD, and DEL if that fails. The pod's object then has its address.
func (s *sandbox) boots(ctx context.Context) error {
	made, err := s.libcni.AddNetworkList(ctx, s.list, s.runtime("eth0"))
	if err != nil {
		return errors.Join(err, s.del(ctx))
	}
	result, err := types100.NewResultFromResult(made)
	if err != nil {
		return err
	}
	namespace, name, _ := strings.Cut(s.pod, "/")
	s.l.put(strings.ReplaceAll(s.pod, "/", "-"), fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, uid: uid-%s}
spec: {nodeName: %s, containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: %s}]}
`, name, namespace, s.id, s.node, netip.MustParseAddr(result.IPs[0].Address.IP.String())))
	return nil
}

// reported asks a service from a pod. Where somebody else answers it adds what the agent says of the pod, for a failure
// to show.
func (l *lab) reported(ctx context.Context, s *sandbox, to string) string {
	answer := answerOf(ctx, s, to)
	if answer == "ping" {
		return answer
	}
	said, known := l.workloads(ctx, s.node)[s.pod]
	return fmt.Sprintf("%s; known %v, enrolled %v: %s", answer, known, said.Enrolled, said.Reason)
}
