//go:build linux

package nstest

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// All rules apply where packets leave a socket. Over loopback, packets are
// tracked there, once, and arrive already tracked.
var (
	raw         = chain{"raw", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw}
	filter      = chain{"filter", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter}
	output      = chain{"output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest}
	postrouting = chain{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource}
	unused      = chain{name: "unused"}
)

type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
}

// NFT returns a connection to the namespace's nftables, for other rules.
func (n *NS) NFT() *nftables.Conn {
	n.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(n.FD()))
	check(n.t, err)
	return conn
}

// Track lets packets of one family be tracked, where New was told not to.
func (n *NS) Track(family nftables.TableFamily) {
	n.t.Helper()
	conn := n.NFT()
	t := conn.AddTable(&nftables.Table{Family: family, Name: "track"})
	c := conn.AddChain(&nftables.Chain{Table: t, Name: raw.name, Type: raw.kind, Hooknum: raw.hook, Priority: raw.priority})
	conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}})
	check(n.t, conn.Flush())
}

// DNAT translates the destination of connections from one address and port to
// another. proto is a protocol with ports, such as unix.IPPROTO_TCP.
func (n *NS) DNAT(proto uint8, from, to netip.AddrPort) {
	n.t.Helper()
	n.rule(output, matchAddr(from.Addr()), matchDst(proto, from.Port()), nat(expr.NATTypeDestNAT, to))
}

// SNAT translates the source of connections to dst. If the port of to is zero,
// the source keeps its port when possible.
func (n *NS) SNAT(proto uint8, dst, to netip.AddrPort) {
	n.t.Helper()
	n.rule(postrouting, matchAddr(dst.Addr()), matchDst(proto, dst.Port()), nat(expr.NATTypeSourceNAT, to))
}

// DropIncoming drops incoming packets. They have been tracked on their way out.
func (n *NS) DropIncoming() {
	n.t.Helper()
	conn := n.NFT()
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "drop"})
	chain := conn.AddChain(&nftables.Chain{
		Table:    table,
		Name:     "input",
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
	check(n.t, conn.Flush())
}

// Helper makes the kernel's helper with the given name, such as "ftp", watch
// connections to port.
func (n *NS) Helper(name string, proto uint8, port uint16) {
	n.t.Helper()
	conn := n.NFT()
	conn.AddObj(&nftables.NamedObj{
		Table: conn.AddTable(table()),
		Name:  name,
		Type:  nftables.ObjTypeCtHelper,
		Obj:   &expr.CtHelper{Name: name, L4Proto: proto},
	})
	check(n.t, conn.Flush())
	n.rule(filter, matchDst(proto, port), []expr.Any{
		&expr.Objref{Type: int(nftables.ObjTypeCtHelper), Name: name},
	})
}

// Mark sets the mark of connections to port.
func (n *NS) Mark(proto uint8, port uint16, mark uint32) {
	n.t.Helper()
	n.rule(filter, matchDst(proto, port), set(expr.CtKeyMARK, binaryutil.NativeEndian.PutUint32(mark)))
}

// Zone tracks connections to port in a conntrack zone.
func (n *NS) Zone(proto uint8, port, zone uint16) {
	n.t.Helper()
	value := binaryutil.NativeEndian.PutUint16(zone)
	n.rule(raw, matchDst(proto, port), set(expr.CtKeyZONE, value))
	n.rule(raw, matchSrc(proto, port), set(expr.CtKeyZONE, value))
}

// Labels makes room for labels in new flows, as any rule that sets one does.
func (n *NS) Labels() {
	n.t.Helper()
	n.rule(unused, set(expr.CtKeyLABELS, make([]byte, 16)))
}

// Label sets the label of connections to port.
func (n *NS) Label(proto uint8, port uint16, label [16]byte) {
	n.t.Helper()
	n.rule(filter, matchDst(proto, port), set(expr.CtKeyLABELS, label[:]))
}

// Drop drops packets sent to port.
func (n *NS) Drop(proto uint8, port uint16) {
	n.t.Helper()
	n.rule(filter, matchDst(proto, port), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
}

// rule appends a rule made of parts to a chain.
func (n *NS) rule(c chain, parts ...[]expr.Any) {
	n.t.Helper()
	conn := n.NFT()
	t := conn.AddTable(table())
	r := &nftables.Rule{Table: t, Chain: conn.AddChain(&nftables.Chain{
		Table:    t,
		Name:     c.name,
		Type:     c.kind,
		Hooknum:  c.hook,
		Priority: c.priority,
	})}
	for _, part := range parts {
		r.Exprs = append(r.Exprs, part...)
	}
	conn.AddRule(r)
	check(n.t, conn.Flush())
}

func table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: "nstest"}
}

// matchAddr matches packets to addr.
func matchAddr(addr netip.Addr) []expr.Any {
	offset := uint32(16)
	if addr.Is6() {
		offset = 24
	}
	value := addr.AsSlice()
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(family(addr))}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(value))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
	}
}

// matchSrc matches packets from port. The protocol must have ports.
func matchSrc(proto uint8, port uint16) []expr.Any {
	return matchPort(proto, 0, port)
}

// matchDst matches packets to port. The protocol must have ports.
func matchDst(proto uint8, port uint16) []expr.Any {
	return matchPort(proto, 2, port)
}

func matchPort(proto uint8, offset uint32, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// set sets a property of the packet's connection.
func set(key expr.CtKey, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: value},
		&expr.Ct{Key: key, SourceRegister: true, Register: 1},
	}
}

// nat translates one end of the packet's connection to an address and port.
func nat(kind expr.NATType, to netip.AddrPort) []expr.Any {
	translate := &expr.NAT{Type: kind, Family: family(to.Addr()), RegAddrMin: 1}
	exprs := []expr.Any{&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()}}
	if to.Port() != 0 {
		translate.RegProtoMin = 2
		exprs = append(exprs, &expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(to.Port())})
	}
	return append(exprs, translate)
}

func family(addr netip.Addr) uint32 {
	if addr.Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
