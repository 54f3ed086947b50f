//go:build linux

package compat

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)

var (
	client4 = netip.MustParseAddr("127.0.0.2")
	server4 = netip.MustParseAddr("127.0.0.1")
	other4  = netip.MustParseAddr("127.0.0.3")
	client6 = nstest.IPv6
	server6 = netip.MustParseAddr("::1")
)

// These ports are used in rules.
const (
	ftpPort = 2121 + iota
	markPort
	otherMarkPort
	labelPort
	zonePort
	dnatPort
	snatPort
	dnat6Port
)

func at(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

func makeRules(ns *nstest.NS) {
	ns.Helper("ftp", tcp, ftpPort)
	ns.Mark(udp, markPort, 0x17)
	ns.Mark(tcp, otherMarkPort, 0xffff0010)
	ns.Label(udp, labelPort, [16]byte{1, 2, 3, 15: 0x80})
	ns.Zone(udp, zonePort, 7)
	ns.DNAT(tcp, at(server4, dnatPort), at(other4, 9000))
	ns.SNAT(udp, at(server4, snatPort), at(other4, 9001))
	ns.DNAT(udp, at(server6, dnat6Port), at(server6, 9002))
}

// makeTraffic sends packets of all kinds.
func makeTraffic(t *testing.T, ns *nstest.NS) {
	t.Helper()
	ns.TCP(at(client4, 40001), at(server4, 8001)).Send([]byte("hello"))
	ns.TCP(at(client6, 40002), at(server6, 8002)).Reply([]byte("hello"))
	ns.TCP(at(client4, 40003), at(server4, 8003)).Close()
	ns.TCP(at(client6, 40004), at(server6, 8004)).Abort()
	ns.TCP(at(client4, 40005), at(server4, otherMarkPort))
	ns.TCPThrough(at(client4, 40006), at(server4, dnatPort), at(other4, 9000)).Send([]byte("hello"))
	ns.UDP(at(client4, 40007), at(server4, 8007), true)
	ns.UDP(at(client4, 40008), at(server4, 8008), false)
	ns.UDP(at(client6, 40009), at(server6, 8009), true)
	ns.UDP(at(client4, 40010), at(server4, markPort), true)
	ns.UDP(at(client4, 40011), at(server4, labelPort), true)
	ns.UDP(at(client4, 40012), at(server4, zonePort), true)
	ns.UDPThrough(at(client4, 40013), at(server4, snatPort), at(server4, snatPort), true)
	ns.UDPThrough(at(client6, 40014), at(server6, dnat6Port), at(server6, 9002), true)
	ns.ICMPEcho(server4, 42)
	ns.ICMPEcho(server6, 43)
	ns.SCTP(at(client4, 40015), at(server4, 8015))
	ns.SCTP(at(client6, 40016), at(server6, 8016))
	ns.GRE(client4, server4, 0xbeef)
	ns.Raw(253, client4, server4, []byte("hello"))

	control := ns.TCP(at(client4, 40017), at(server4, ftpPort))
	control.Send([]byte("USER anonymous\r\n")) // from here on, the helper knows where lines end
	control.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
	ns.TCP(at(server4, 20), at(client4, 200<<8|10)) // expected
	control.Send([]byte("PORT 127,0,0,2,200,12\r\n"))
	control6 := ns.TCP(at(client6, 40018), at(server6, ftpPort))
	control6.Send([]byte("USER anonymous\r\n"))
	control6.Send([]byte("EPRT |2|fd00::1|51211|\r\n"))
}

// makeFlows creates flows that would need unusual packets.
func makeFlows(t *testing.T, ns *nstest.NS) {
	t.Helper()
	c := dial(t, ns)
	create := func(port uint16, proto uint8, change func(*conntrack.Flow)) {
		f := conntrack.NewFlow(proto, conntrack.StatusConfirmed, client4, server4, port, 80, 600, 0)
		change(&f)
		if err := c.Create(f); err != nil {
			t.Fatal(err)
		}
	}
	create(50001, udp, func(f *conntrack.Flow) { f.TupleOrig.Zone = 8 })
	create(50002, udp, func(f *conntrack.Flow) { f.TupleReply.Zone = 9 })
	create(50003, udp, func(f *conntrack.Flow) { f.Zone = 10 })
	create(50004, tcp, func(f *conntrack.Flow) {
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateEstablished}
		f.SeqAdjOrig = conntrack.SequenceAdjust{Position: 1, OffsetBefore: 2, OffsetAfter: 3}
		f.SeqAdjReply = conntrack.SequenceAdjust{Direction: true, Position: 4, OffsetBefore: 5, OffsetAfter: 6}
	})
	create(50005, tcp, func(f *conntrack.Flow) {
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateSynSent}
		f.SynProxy = conntrack.SynProxy{ISN: 1, ITS: 2, TSOff: 3}
	})
	create(50006, udp, func(f *conntrack.Flow) {
		f.Status.Value |= conntrack.StatusSeenReply | conntrack.StatusAssured | conntrack.StatusFixedTimeout
	})
	create(50007, udp, func(f *conntrack.Flow) { f.Mark = 0xffffffff })
	changed := conntrack.NewFlow(udp, 0, client4, server4, 50007, 80, 900, 0x1234)
	if err := c.Update(changed); err != nil {
		t.Fatal(err)
	}
}

// endFlows ends all flows, and last the one whose end stops the programs.
func endFlows(t *testing.T, ns *nstest.NS) {
	t.Helper()
	const stopMark = 0x570b
	c := dial(t, ns)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	last := conntrack.NewFlow(udp, conntrack.StatusConfirmed, client4, server4, 1, 1, 60, stopMark)
	if err := c.Create(last); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(last); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, ns *nstest.NS) *conntrack.Conn {
	t.Helper()
	c, err := conntrack.Dial(ns.Config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
