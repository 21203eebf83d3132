// SPDX-License-Identifier: Apache-2.0

// Package nat makes a node forward service addresses by nftables, with the rules that kube-proxy writes in its nftables
// mode: what a cluster has without a mesh. Package bench compares with it.
package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Service is one address and port of a service, and what is behind it.
type Service struct {
	Address   netip.AddrPort
	Protocol  uint8 // IPPROTO_TCP or IPPROTO_UDP
	Endpoints []netip.AddrPort
}

// masquerade is the mark of packets whose source is rewritten, too, as in kube-proxy.
const masquerade = 0x4000

// perBatch is how many services one netlink transaction holds, buffer what its socket needs for them and the answers.
const (
	perBatch = 200
	buffer   = 16 << 20
)

// Install writes the rules for services into the network namespace at path netns. They go with the namespace.
//
// The layout is kube-proxy's (pkg/proxy/nftables, v1.33): prerouting and output jump to a chain that looks the
// destination up in one verdict map; a chain per service draws a number and goes to a chain per endpoint, which marks
// hairpin traffic and does the translation; new connections pass a second map of services without endpoints.
func Install(netns string, services []Service) error {
	file, err := os.Open(netns)
	if err != nil {
		return fmt.Errorf("install NAT: %w", err)
	}
	defer file.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(file.Fd())), nftables.AsLasting(),
		nftables.WithSockOptions(func(c *netlink.Conn) error {
			return errors.Join(c.SetWriteBuffer(buffer), c.SetReadBuffer(buffer))
		}))
	if err != nil {
		return fmt.Errorf("install NAT in %s: %w", netns, err)
	}
	defer func() { _ = conn.CloseLasting() }() // everything is written, or has failed, by then
	r := &rules{conn: conn, table: conn.AddTable(&nftables.Table{Name: "kube-proxy", Family: nftables.TableFamilyIPv4})}
	if err := r.base(); err != nil {
		return fmt.Errorf("install NAT in %s: %w", netns, err)
	}
	for i, s := range services {
		if err := r.service(i, s); err != nil {
			return fmt.Errorf("install NAT of %v: %w", s.Address, err)
		}
		if (i+1)%perBatch == 0 || i == len(services)-1 {
			if err := conn.SetAddElements(r.services, r.elements); err != nil {
				return fmt.Errorf("install NAT in %s: %w", netns, err)
			}
			r.elements = nil
			if err := conn.Flush(); err != nil {
				return fmt.Errorf("install NAT in %s, services up to %d: %w", netns, i, err)
			}
		}
	}
	return nil
}

// rules are what is written to one table.
type rules struct {
	conn     *nftables.Conn
	table    *nftables.Table
	services *nftables.Set // address . protocol . port -> chain of the service
	empty    *nftables.Set // the same of services without endpoints
	mark     *nftables.Chain
	elements []nftables.SetElement
}

// base makes what there is once.
func (r *rules) base() error {
	key := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	r.services = &nftables.Set{Table: r.table, Name: "service-ips", IsMap: true, Concatenation: true, KeyType: key,
		DataType: nftables.TypeVerdict}
	r.empty = &nftables.Set{Table: r.table, Name: "no-endpoint-services", IsMap: true, Concatenation: true, KeyType: key,
		DataType: nftables.TypeVerdict}
	for _, set := range []*nftables.Set{r.services, r.empty} {
		if err := r.conn.AddSet(set, nil); err != nil {
			return err
		}
	}
	r.mark = r.chain("mark-for-masquerade")
	r.rule(r.mark, // meta mark set meta mark or 0x4000
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(^uint32(masquerade)),
			Xor: native(masquerade)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true})
	masquerading := r.chain("masquerading")
	r.rule(masquerading, // meta mark and 0x4000 == 0 return
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(masquerade), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(0)},
		&expr.Verdict{Kind: expr.VerdictReturn})
	r.rule(masquerading, &expr.Masq{FullyRandom: true})
	services := r.chain("services")
	r.rule(services, lookup(r.services)...)
	check := r.chain("service-endpoints-check")
	r.rule(check, lookup(r.empty)...)

	for _, b := range []struct {
		name     string
		kind     nftables.ChainType
		hook     *nftables.ChainHook
		priority *nftables.ChainPriority
		to       string
		newOnly  bool
	}{
		{"nat-prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, services.Name,
			false},
		{"nat-output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, services.Name, false},
		{"nat-postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
			masquerading.Name, false},
		{"filter-input", nftables.ChainTypeFilter, nftables.ChainHookInput, beforeNAT, check.Name, true},
		{"filter-forward", nftables.ChainTypeFilter, nftables.ChainHookForward, beforeNAT, check.Name, true},
		{"filter-output", nftables.ChainTypeFilter, nftables.ChainHookOutput, beforeNAT, check.Name, true},
	} {
		chain := r.conn.AddChain(&nftables.Chain{Name: b.name, Table: r.table, Type: b.kind, Hooknum: b.hook,
			Priority: b.priority})
		var match []expr.Any
		if b.newOnly { // ct state new
			match = []expr.Any{
				&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(expr.CtStateBitNEW), Xor: native(0)},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
			}
		}
		r.rule(chain, append(match, &expr.Verdict{Kind: expr.VerdictJump, Chain: b.to})...)
	}
	return r.conn.Flush()
}

// beforeNAT is kube-proxy's priority of filter chains: just before translation.
var beforeNAT = nftables.ChainPriorityRef(-110)

// service adds the chains of one service.
func (r *rules) service(number int, s Service) error {
	chain := r.chain(fmt.Sprintf("service-%d", number))
	verdicts := make([]nftables.SetElement, len(s.Endpoints))
	for i, to := range s.Endpoints {
		endpoint := r.endpoint(fmt.Sprintf("endpoint-%d-%d", number, i), s.Protocol, to)
		verdicts[i] = nftables.SetElement{
			Key: native(uint32(i)), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: endpoint},
		}
	}
	if len(verdicts) == 1 { // kube-proxy goes there without drawing
		r.rule(chain, verdicts[0].VerdictData)
	} else {
		choice := &nftables.Set{Table: r.table, Anonymous: true, Constant: true, IsMap: true,
			KeyType: nftables.TypeInteger, DataType: nftables.TypeVerdict}
		if err := r.conn.AddSet(choice, verdicts); err != nil {
			return err
		}
		r.rule(chain,
			&expr.Numgen{Register: 1, Type: unix.NFT_NG_RANDOM, Modulus: uint32(len(verdicts))},
			&expr.Lookup{SourceRegister: 1, SetName: choice.Name, SetID: choice.ID, DestRegister: 0, IsDestRegSet: true})
	}
	address := s.Address.Addr().As4()
	key := append(address[:], s.Protocol, 0, 0, 0)
	key = append(binary.BigEndian.AppendUint16(key, s.Address.Port()), 0, 0)
	r.elements = append(r.elements, nftables.SetElement{
		Key: key, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain.Name},
	})
	return nil
}

// endpoint adds the chain of an endpoint and returns its name.
func (r *rules) endpoint(name string, protocol uint8, to netip.AddrPort) string {
	chain := r.chain(name)
	address := to.Addr().As4()
	r.rule(chain, // ip saddr ENDPOINT jump mark-for-masquerade
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: address[:]},
		&expr.Verdict{Kind: expr.VerdictJump, Chain: r.mark.Name})
	r.rule(chain, // meta l4proto PROTOCOL dnat to ENDPOINT:PORT
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Immediate{Register: 1, Data: address[:]},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2})
	return chain.Name
}

// lookup is ip daddr . meta l4proto . th dport vmap @set. A concatenation is made in consecutive registers of 4 bytes.
func lookup(set *nftables.Set) []expr.Any {
	const first = unix.NFT_REG32_00
	return []expr.Any{
		&expr.Payload{DestRegister: first, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first + 1},
		&expr.Payload{DestRegister: first + 2, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: first, SetName: set.Name, SetID: set.ID, DestRegister: 0, IsDestRegSet: true},
	}
}

func (r *rules) chain(name string) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table})
}

func (r *rules) rule(chain *nftables.Chain, exprs ...expr.Any) {
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: chain, Exprs: exprs})
}

func native(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }
