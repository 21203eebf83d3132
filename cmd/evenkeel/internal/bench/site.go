// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
	natrules "github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/nat"
	"github.com/evenkeel/evenkeel/netsim"
)

// site is one lab: a node with two pairs of pods, each a client and a server.
type site struct {
	lab   *netsim.Lab
	pairs [2]pair
	// agent is the node's agent, 0 if there is none.
	agent int
}

// pair is a client and a server, and the service address that leads from one to the other where there is a mesh or NAT.
type pair struct {
	client, server *netsim.Pod
	service        netip.Addr
}

// nodeName is that of the only node of a site.
const nodeName = "a"

// firstPair is the service address of the first pair; the second one's is the next.
var firstPair = netip.MustParseAddr("10.95.0.1")

// The servers of a pair, on the same port in the pod and at the service.
var ports = map[string]uint16{"serve-one": 7001, "serve-many": 7002, "serve-http": 7003}

// trafficScale is what mesh and NAT know while there is traffic, beside the pairs, if a test does not want less.
var trafficScale = Scale{Services: 10_000, Endpoints: 10}

// newSite builds a lab. Pods are enrolled here where the data plane is a proxy; in that of the mesh later, each in its
// own way.
func (s *session) newSite(ctx context.Context, name string, dataplane netsim.Dataplane, args ...string) (*site, error) {
	text := fmt.Sprintf(`apiVersion: netsim.evenkeel.io/v1
kind: Topology
metadata: {name: bench-%d-%s}
spec:
  dataplane: %s
  nodes:
  - {name: %s, podCIDRs: [10.10.1.0/24]}
  agent: {enabled: true, args: [%s]}
  pods:
  - {name: client, node: %s, count: 2, enrol: %v}
  - {name: server, node: %s, count: 2, enrol: %v}
`, os.Getpid(), name, dataplane, nodeName, strings.Join(args, ", "), nodeName, dataplane != netsim.Evenkeel, nodeName,
		dataplane != netsim.Evenkeel)
	topology, err := netsim.Parse(strings.NewReader(text), "bench.yaml")
	if err != nil {
		return nil, err
	}
	lab, err := netsim.Up(ctx, topology, netsim.Options{Binary: s.binary})
	if err != nil {
		return nil, err
	}
	at := &site{lab: lab}
	s.sites = append(s.sites, at)
	for i := range at.pairs {
		at.pairs[i] = pair{
			client: lab.Pod(fmt.Sprintf("client-%d", i)), server: lab.Pod(fmt.Sprintf("server-%d", i)),
			service: nth(firstPair, i),
		}
	}
	return at, nil
}

// plainSite has nothing but pods.
func (s *session) plainSite(ctx context.Context) (*site, error) {
	if s.plain == nil {
		at, err := s.newSite(ctx, "plain", netsim.None)
		if err != nil {
			return nil, fmt.Errorf("build pods without a mesh: %w", err)
		}
		s.plain = at
	}
	return s.plain, nil
}

// natSite forwards services by nftables.
func (s *session) natSite(ctx context.Context) (*site, error) {
	if s.nat == nil {
		s.progress("nftables rules", 0, 0)
		at, err := s.newSite(ctx, "nat", netsim.None)
		if err != nil {
			return nil, fmt.Errorf("build pods behind NAT: %w", err)
		}
		if err := natrules.Install(at.lab.Node(nodeName).Netns, s.natServices(at)); err != nil {
			return nil, err
		}
		s.nat = at
	}
	return s.nat, nil
}

// natServices are the same as the mesh has.
func (s *session) natServices(at *site) []natrules.Service {
	var all []natrules.Service
	for i := range s.scale.Services {
		service := natrules.Service{
			Address:  netip.AddrPortFrom(nth(firstService, i), servicePort),
			Protocol: unix.IPPROTO_UDP,
		}
		for j := range s.scale.Endpoints {
			service.Endpoints = append(service.Endpoints,
				netip.AddrPortFrom(nth(firstEndpoint, i*s.scale.Endpoints+j), endpointPort))
		}
		all = append(all, service)
	}
	for _, p := range at.pairs {
		for _, port := range ports {
			all = append(all, natrules.Service{
				Address: netip.AddrPortFrom(p.service, port), Protocol: unix.IPPROTO_TCP,
				Endpoints: []netip.AddrPort{netip.AddrPortFrom(p.server.Addresses[0], port)},
			})
		}
	}
	return all
}

// meshSite has an agent; the first pair is enrolled without the source check, the second with it.
func (s *session) meshSite(ctx context.Context) (*site, error) {
	if s.mesh == nil {
		s.progress("agent with 10,000 services", 0, 0)
		at, err := s.newMeshSite(ctx)
		if err != nil {
			return nil, fmt.Errorf("build pods with the mesh: %w", err)
		}
		s.mesh = at
	}
	return s.mesh, nil
}

func (s *session) newMeshSite(ctx context.Context) (*site, error) {
	// Room for the pairs beside what the defaults have room for.
	at, err := s.newSite(ctx, "mesh", netsim.Evenkeel, "--max-endpoints=110000")
	if err != nil {
		return nil, err
	}
	manifests := at.lab.Info().Manifests
	if err := s.scale.writeFile(filepath.Join(manifests, "cluster.yaml")); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(manifests, "pairs.yaml"), at.pairManifests(), 0o644); err != nil {
		return nil, fmt.Errorf("write manifests: %w", err)
	}
	if err := at.restartAgent(ctx); err != nil { // ready means that it has these, too
		return nil, err
	}
	pins := at.lab.Info().Nodes[0].PinDir
	for i, p := range at.pairs {
		for _, pod := range []*netsim.Pod{p.client, p.server} {
			command := at.lab.Node(nodeName).Command(ctx, s.binary, "enrol", "--netns", pod.Netns, "--pin-dir", pins,
				"--pod", pod.Namespace+"/"+pod.Name, fmt.Sprintf("--source-check=%v", i == 1))
			if out, err := command.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("enrol pod %s: %w: %s", pod.Name, err, bytes.TrimSpace(out))
			}
		}
	}
	return at, nil
}

// peerSite has a proxy in user space. It knows only the services of the pairs, so it has less to look through than mesh
// and NAT.
func (s *session) peerSite(arm string) func(context.Context) (*site, error) {
	return func(ctx context.Context) (*site, error) {
		if at := s.peers[arm]; at != nil {
			return at, nil
		}
		dataplane, args := netsim.Ambient, []string(nil)
		switch arm {
		case Plaintext:
			args = []string{"--plaintext"}
		case Ztunnel:
			dataplane = netsim.Ztunnel
		}
		at, err := s.newSite(ctx, strings.NewReplacer(", ", "-").Replace(arm), dataplane, args...)
		if err == nil {
			err = os.WriteFile(filepath.Join(at.lab.Info().Manifests, "pairs.yaml"), at.pairManifests(), 0o644)
		}
		if err == nil {
			err = at.restartAgent(ctx) // it reads that once
		}
		if err != nil {
			return nil, fmt.Errorf("build pods with %s: %w", arm, err)
		}
		s.peers[arm] = at
		return at, nil
	}
}

// restartAgent ends the agent, if one runs, and starts the next one.
func (at *site) restartAgent(ctx context.Context, args ...string) error {
	if err := at.stopAgent(ctx); err != nil {
		return err
	}
	if err := at.lab.StartAgent(ctx, nodeName, args...); err != nil {
		return err
	}
	at.agent = at.lab.Info().Nodes[0].Agent.PID
	return nil
}

// stopAgent ends the agent, if one runs.
func (at *site) stopAgent(ctx context.Context) error {
	if at.lab.Info().Nodes[0].Agent.State != netsim.AgentRunning {
		return nil
	}
	at.agent = 0
	if err := at.lab.KillAgent(ctx, nodeName, syscall.SIGTERM); err != nil {
		return err
	}
	return at.lab.WaitAgent(ctx, nodeName)
}

// pairManifests are the services of the pairs.
func (at *site) pairManifests() []byte {
	var out bytes.Buffer
	for i, p := range at.pairs {
		fmt.Fprintf(&out, "---\napiVersion: v1\nkind: Service\nmetadata: {name: pair-%d, namespace: bench}\n"+
			"spec:\n  clusterIP: %v\n  ports:\n", i, p.service)
		for name, port := range ports {
			fmt.Fprintf(&out, "  - {name: %s, port: %d, protocol: TCP}\n", name, port)
		}
		fmt.Fprintf(&out, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"+
			"metadata: {name: pair-%d, namespace: bench, labels: {kubernetes.io/service-name: pair-%d}}\n"+
			"addressType: IPv4\nendpoints:\n- addresses: [%v]\n  conditions: {ready: true}\nports:\n", i, i, p.server.Addresses[0])
		for name, port := range ports {
			fmt.Fprintf(&out, "- {name: %s, port: %d, protocol: TCP}\n", name, port)
		}
	}
	return out.Bytes()
}

// closeSites takes all labs down.
func (s *session) closeSites(ctx context.Context) error {
	// Labs have to go even when ctx has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var errs []error
	for _, at := range s.sites {
		errs = append(errs, at.lab.Down(ctx))
	}
	s.sites, s.plain, s.nat, s.mesh, s.engine, s.upgrade = nil, nil, nil, nil, nil, nil
	clear(s.peers)
	return errors.Join(errs...)
}

// kernelThreads are the threads that finish packets for processes that were interrupted too often: what they use is
// charged to an operation, too.
func kernelThreads() ([]int, error) {
	found, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range found {
		name, err := os.ReadFile(path)
		if err != nil || !bytes.HasPrefix(name, []byte("ksoftirqd/")) {
			continue // a process that has ended meanwhile
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/comm", &pid); err != nil {
			return nil, fmt.Errorf("find kernel threads: %s: %w", path, err)
		}
		if _, err := load.CPUTime(pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
