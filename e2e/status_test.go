// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// statusOf is the part of `status -o json` that specs look at.
type statusOf struct {
	Healthy  bool     `json:"healthy"`
	Differs  bool     `json:"differs"` // what serves is of another release than the agent
	Problems []string `json:"problems"`
	Maps     []struct {
		Map      string `json:"map"`
		Used     int    `json:"used"`
		Capacity int    `json:"capacity"`
	} `json:"maps"`
	Generations []struct {
		Number   uint16            `json:"number"`
		Counters map[string]uint64 `json:"counters"`
	} `json:"generations"`
	Workloads []workloadStatus `json:"workloads"`
	Sources   []struct {
		Warnings []string `json:"warnings"`
	} `json:"sources"`
	Engine struct {
		Writes map[string]uint64 `json:"writes"`
	} `json:"engine"`
}

type workloadStatus struct {
	Name      string `json:"name"`
	Enrolled  bool   `json:"enrolled"`
	Reason    string `json:"reason"`
	Netns     string `json:"netns"`
	Cookie    uint64 `json:"cookie"`
	Interface uint32 `json:"interface"`
}

// ports returns the number of service ports in the kernel.
func (s statusOf) ports() int {
	for _, m := range s.Maps {
		if m.Map == "services" {
			return m.Used
		}
	}
	return -1
}

// expectPorts waits until the kernel of a node has that many service ports: one per address, port and protocol. A file
// of several services is put in place one after the other, so that one of them is served says nothing of the rest.
func (l *lab) expectPorts(ctx context.Context, node string, ports int) {
	GinkgoHelper()
	Eventually(ctx, func() int { return l.status(ctx, node).ports() }).Should(Equal(ports), "service ports of node %s", node)
}

// problems returns what the status complains of.
func (l *lab) problems(ctx context.Context, node string) string {
	GinkgoHelper()
	return strings.Join(l.status(ctx, node).Problems, "\n")
}

func (l *lab) status(ctx context.Context, node string) statusOf {
	GinkgoHelper()
	got := l.evenkeel(ctx, node, "status", "-o", "json")
	var told statusOf
	Expect(json.Unmarshal([]byte(got.stdout), &told)).To(Succeed(), "%+v", got)
	return told
}

// counter returns a counter of a node, over all generations.
func (l *lab) counter(ctx context.Context, node, name string) int {
	GinkgoHelper()
	total := 0
	for _, generation := range l.status(ctx, node).Generations {
		Expect(generation.Counters).To(HaveKey(name))
		total += int(generation.Counters[name])
	}
	return total
}

// workloads returns the pods of a node by name.
func (l *lab) workloads(ctx context.Context, node string) map[string]workloadStatus {
	GinkgoHelper()
	byName := map[string]workloadStatus{}
	for _, w := range l.status(ctx, node).Workloads {
		byName[w.Name] = w
	}
	return byName
}

// writes returns how many map entries a node's agent has written since it started.
func (l *lab) writes(ctx context.Context, node string) int {
	GinkgoHelper()
	total := 0
	for _, n := range l.status(ctx, node).Engine.Writes {
		total += int(n)
	}
	return total
}

// dumped is the part of /v1/endpoints, which is `dump endpoints -o json`, that specs look at.
type dumped struct {
	Endpoints []struct {
		Service string `json:"service"`
		Address string `json:"address"`
	} `json:"endpoints"`
}

// served returns the endpoints, "address:port", behind a service as the agent of a node has them applied. It
// asks the agent itself: a command for each change would make changes rare.
func (l *lab) served(ctx context.Context, node, service string) map[string]bool {
	GinkgoHelper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.admin(node))
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dial}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/endpoints", nil)
	Expect(err).NotTo(HaveOccurred())
	response, err := (&http.Client{Transport: transport}).Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	var told dumped
	Expect(json.NewDecoder(response.Body).Decode(&told)).To(Succeed())
	set := map[string]bool{}
	for _, endpoint := range told.Endpoints {
		if endpoint.Service == service {
			set[endpoint.Address] = true
		}
	}
	return set
}

// peers returns the endpoints, "address:port", that the client sockets of a pod are connected to.
func (l *lab) peers(ctx context.Context, node, pod string) []string {
	GinkgoHelper()
	got := l.evenkeel(ctx, node, "dump", "flows", "-o", "json")
	var told struct {
		Flows []struct {
			Client string `json:"client"`
			Peer   string `json:"peer"`
			State  string `json:"state"`
		} `json:"flows"`
	}
	Expect(json.Unmarshal([]byte(got.stdout), &told)).To(Succeed(), "%+v", got)
	var peers []string
	for _, flow := range told.Flows {
		if flow.Client == pod && flow.State != "closed" {
			peers = append(peers, flow.Peer)
		}
	}
	return peers
}
