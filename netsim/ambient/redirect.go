// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"errors"
	"fmt"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Ports of the proxy in each pod, as ztunnel has them.
const (
	outboundPort  = 15001
	inboundPort   = 15006 // plaintext
	encryptedPort = 15008
)

// Marks are istio-cni's: a packet of the proxy, and a connection that it opened to the application.
const (
	ownMark = 0x539
	appMark = 0x111
	allBits = 0xfff // of a mark that count
)

// The rule that brings the application's answers back to the proxy, which uses other addresses than the pod's.
const (
	answerTable    = 100
	answerPriority = 32764
)

// tableName is the nftables table with the rules of a pod.
const tableName = "ambient"

// Redirect makes the network namespace of the calling thread lead TCP to the proxy of the node: what the pod connects to
// and what comes in. It may be called again. Whether a proxy listens is not its business: without one, connections are
// refused.
func Redirect() error {
	if err := Release(); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	addRules(c)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write rules of redirection: %w", err)
	}
	for _, family := range families {
		if err := netlink.RouteReplace(family.route()); err != nil {
			return fmt.Errorf("route answers: %w", err)
		}
		if err := netlink.RuleAdd(family.rule()); err != nil {
			return fmt.Errorf("add rule for answers: %w", err)
		}
	}
	return nil
}

// Release takes back what Redirect has done in the namespace of the calling thread, if it has.
func Release() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove rules of redirection: %w", err)
	}
	for _, family := range families {
		if err := netlink.RuleDel(family.rule()); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove rule for answers: %w", err)
		}
		if err := netlink.RouteDel(family.route()); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route for answers: %w", err)
		}
	}
	return nil
}

// family is IPv4 or IPv6.
type family struct {
	number int
	any    string
}

var families = []family{{unix.AF_INET, "0.0.0.0/0"}, {unix.AF_INET6, "::/0"}}

func (f family) rule() *netlink.Rule {
	r := netlink.NewRule()
	mask := uint32(allBits)
	r.Family, r.Priority, r.Table, r.Mark, r.Mask = f.number, answerPriority, answerTable, appMark, &mask
	return r
}

func (f family) route() *netlink.Route {
	_, any, err := net.ParseCIDR(f.any)
	if err != nil {
		panic(err) // it is a constant
	}
	const loopback = 1
	return &netlink.Route{LinkIndex: loopback, Dst: any, Table: answerTable, Type: unix.RTN_LOCAL,
		Scope: unix.RT_SCOPE_HOST}
}

// addRules writes, in the syntax of nft(8):
//
//	table inet ambient {
//	  chain mark-in  { type filter hook prerouting priority mangle; meta mark & 0xfff == 0x539 ct mark set 0x111 }
//	  chain mark-out { type route hook output priority mangle; ct mark & 0xfff == 0x111 meta mark set ct mark }
//	  chain in  { type nat hook prerouting priority dstnat
//	              meta l4proto tcp ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006 }
//	  chain out { type nat hook output priority dstnat
//	              meta l4proto tcp meta mark & 0xfff == 0x111 accept
//	              meta l4proto tcp meta mark & 0xfff == 0x539 accept
//	              oifname "lo" accept                        # the pod talks to itself
//	              meta l4proto tcp redirect to :15001 }
//	}
func addRules(c *nftables.Conn) {
	table := c.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, at *nftables.ChainPriority,
		rules ...[]expr.Any) {
		ch := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: at})
		for _, r := range rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: r})
		}
	}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	mangle, nat := nftables.ChainPriorityMangle, nftables.ChainPriorityNATDest
	chain("mark-in", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, mangle,
		all(mark(expr.CmpOpEq, ownMark), []expr.Any{
			&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(appMark)},
			&expr.Ct{Register: 1, SourceRegister: true, Key: expr.CtKeyMARK},
		}))
	chain("mark-out", nftables.ChainTypeRoute, nftables.ChainHookOutput, mangle,
		all(compare(&expr.Ct{Register: 1, Key: expr.CtKeyMARK}, expr.CmpOpEq, appMark), []expr.Any{
			&expr.Ct{Register: 1, Key: expr.CtKeyMARK},
			&expr.Meta{Register: 1, SourceRegister: true, Key: expr.MetaKeyMARK},
		}))
	chain("in", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nat,
		all(fromLoopback(), accept),
		all(tcp(), port(encryptedPort), accept),
		all(tcp(), mark(expr.CmpOpNeq, ownMark), redirect(inboundPort)))
	chain("out", nftables.ChainTypeNAT, nftables.ChainHookOutput, nat,
		all(tcp(), mark(expr.CmpOpEq, appMark), accept),
		all(toLoopback(), accept),
		all(tcp(), mark(expr.CmpOpNeq, ownMark), redirect(outboundPort)))
}

func all(parts ...[]expr.Any) (rule []expr.Any) {
	for _, p := range parts {
		rule = append(rule, p...)
	}
	return rule
}

// compare matches the counting bits of what load has put into register 1.
func compare(load expr.Any, op expr.CmpOp, mark uint32) []expr.Any {
	return []expr.Any{load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(allBits),
			Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(mark)}}
}

func mark(op expr.CmpOp, mark uint32) []expr.Any {
	return compare(&expr.Meta{Register: 1, Key: expr.MetaKeyMARK}, op, mark)
}

func tcp() []expr.Any {
	return []expr.Any{&expr.Meta{Register: 1, Key: expr.MetaKeyL4PROTO},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}}}
}

// port matches a destination port.
func port(number uint16) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)}}
}

// toLoopback matches what a pod says to itself, by whatever address.
func toLoopback() []expr.Any { return link(expr.MetaKeyOIFNAME) }

// fromLoopback matches what a pod hears from itself; the proxy's connections to the application come that way.
func fromLoopback() []expr.Any {
	return all(link(expr.MetaKeyIIFNAME), mark(expr.CmpOpNeq, ownMark))
}

func link(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{&expr.Meta{Register: 1, Key: key}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
}

func redirect(to uint16) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(to)},
		&expr.Redir{RegisterProtoMin: 1}}
}
