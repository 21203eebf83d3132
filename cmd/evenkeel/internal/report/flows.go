// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Flows are the connections of workloads to services, as the sockets of the clients have them.
type Flows struct {
	Version string `json:"version"`
	Flows   []Flow `json:"flows"`
}

// Flow is one socket of a client that is connected to an endpoint of a service.
type Flow struct {
	// Client is the pod, as "namespace/name"; empty if it was withdrawn since.
	Client   string         `json:"client"`
	Local    netip.AddrPort `json:"local"` // as far as known: of a withdrawn pod only the port
	Protocol string         `json:"protocol"`
	// Service and Endpoint are the names of the service and of the pod behind it, empty where the agent does not say.
	Service  string         `json:"service"`
	Dialled  netip.AddrPort `json:"dialled"` // as the application sees its peer
	Endpoint string         `json:"endpoint"`
	Peer     netip.AddrPort `json:"peer"` // as the network does
	// State is that of TCP ("established"); of UDP "connected" or, once the endpoint has gone, "closed".
	State string `json:"state"`
	// Stamp is the generation that the socket was given, Ran the one that saw it last.
	Stamp uint16 `json:"stamp"`
	Ran   uint16 `json:"ran"`
	// Since is when it was connected.
	Since  time.Time `json:"since"`
	Cookie uint64    `json:"cookie"` // of the socket

	service, endpoint string // for Names
}

// ReadFlows reads every flow, in order of client and local address. Its Service and Endpoint are empty; see Name.
func ReadFlows(w *upgrade.Writer) (*Flows, error) {
	serving, err := w.Serving()
	if err != nil {
		return nil, err
	}
	program, sockets := serving.Programs[bpf.MeshProgDumpFlows], w.Frozen[bpf.MeshMapSockets]
	if program == nil || sockets == nil {
		return nil, fmt.Errorf("program dump_flows or map sockets is not pinned any more: restart the agent")
	}
	workloads, err := enrol.List(enrol.Maps{
		Workloads: w.Frozen[bpf.MeshMapWorkloads], Names: w.Frozen[bpf.MeshMapWorkloadNames],
	})
	if err != nil {
		return nil, err
	}
	byCookie := make(map[uint64]enrol.Workload, len(workloads))
	for _, w := range workloads {
		byCookie[w.Cookie] = w
	}
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	all := &Flows{Version: Version, Flows: []Flow{}}
	err = bpf.Flows(program, sockets, func(r bpf.MeshFlowRecord) error {
		if r.Flow.Flags&uint8(bpf.MeshFlowFlagFLOW_SERVICE) != 0 {
			all.Flows = append(all.Flows, flowOf(r, byCookie[r.Netns], boot))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	slices.SortFunc(all.Flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), a.Local.Compare(b.Local), cmp.Compare(a.Cookie, b.Cookie))
	})
	return all, nil
}

func flowOf(r bpf.MeshFlowRecord, client enrol.Workload, boot time.Time) Flow {
	f := r.Flow
	peer := netip.AddrPortFrom(f.Connection.Peer.Addr(), bpf.BigEndian(f.Connection.PeerPort))
	local := client.IP6
	if peer.Addr().Is4() {
		local = client.IP4
	}
	flow := Flow{
		Client: client.Name, Local: netip.AddrPortFrom(local, r.LocalPort), Protocol: "TCP", Peer: peer,
		Dialled: netip.AddrPortFrom(f.Connection.Dialled.Addr(), bpf.BigEndian(f.Connection.DialledPort)), State: tcpState(r.State),
		Stamp: f.Stamp, Ran: f.Ran, Since: boot.Add(time.Duration(f.Start)), Cookie: r.Cookie,
		service:  ref(f.Connection.Service, f.ServiceIncarnation),
		endpoint: ref(uint32(f.Connection.Endpoint), uint32(f.Connection.Endpoint>>32)),
	}
	if f.Protocol == unix.IPPROTO_UDP {
		flow.Protocol, flow.State = "UDP", "connected"
		if r.State != tcpEstablished { // its endpoint went: it is disconnected, and the application has not closed it
			flow.State = "closed"
		}
	}
	return flow
}

func ref(index, incarnation uint32) string {
	return strconv.FormatUint(uint64(index), 10) + "." + strconv.FormatUint(uint64(incarnation), 10)
}

// Refs are the numbers of services and endpoints whose names are asked for, each once.
func (f *Flows) Refs() (services, endpoints []string) {
	for _, flow := range f.Flows {
		services, endpoints = append(services, flow.service), append(endpoints, flow.endpoint)
	}
	slices.Sort(services)
	slices.Sort(endpoints)
	return slices.Compact(services), slices.Compact(endpoints)
}

// Name puts the names in.
func (f *Flows) Name(names *Names) {
	for i := range f.Flows {
		flow := &f.Flows[i]
		flow.Service, flow.Endpoint = names.Services[flow.service], names.Endpoints[flow.endpoint]
	}
}

// tcpEstablished is TCP_ESTABLISHED, which the kernel gives connected UDP sockets, too.
const tcpEstablished = 1

// tcpState names a state of include/net/tcp_states.h.
func tcpState(state uint8) string {
	names := [...]string{
		1: "established", 2: "syn-sent", 3: "syn-received", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait", 7: "closed",
		8: "close-wait", 9: "last-ack", 10: "listen", 11: "closing", 12: "new-syn-received",
	}
	if state == 0 || int(state) >= len(names) {
		return fmt.Sprintf("state %d", state)
	}
	return names[state]
}

// bootTime is when CLOCK_BOOTTIME was 0.
func bootTime() (time.Time, error) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return time.Now().Add(-time.Duration(up.Nano())), nil
}
