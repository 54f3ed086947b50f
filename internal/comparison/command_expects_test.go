//go:build linux

package comparison_test

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// asXMLExpect returns ex in the form of conntrack(8).
func asXMLExpect(ex *conntrack.Expect) xmlExpect {
	number, name := familyOf(&ex.Tuple)
	addrs := func(t *conntrack.Tuple) xmlLayer3 {
		return xmlLayer3{Src: t.IP.SourceAddress.String(), Dst: t.IP.DestinationAddress.String()}
	}
	ports := func(t *conntrack.Tuple) xmlLayer4 {
		l := layer4(t)
		l.Number, l.Name = "", ""
		return l
	}
	return xmlExpect{
		Layer3: xmlExpectTuples3{
			Number: number, Name: name,
			Expected: addrs(&ex.Tuple), Mask: addrs(&ex.Mask), Master: addrs(&ex.TupleMaster),
		},
		Layer4: xmlExpectTuples4{
			Number: fmt.Sprint(ex.Tuple.Proto.Protocol), Name: protocolName(&ex.Tuple),
			Expected: ports(&ex.Tuple), Mask: ports(&ex.Mask), Master: ports(&ex.TupleMaster),
		},
		Meta: xmlExpectMeta{
			Helper:    ex.HelpName,
			Timeout:   fmt.Sprint(ex.Timeout),
			Class:     fmt.Sprint(ex.Class),
			Permanent: flag(ex.Flags&conntrack.ExpectPermanent != 0),
			Inactive:  flag(ex.Flags&conntrack.ExpectInactive != 0),
			Userspace: flag(ex.Flags&conntrack.ExpectUserSpace != 0),
		},
	}
}

// requireExpectsShown asserts that conntrack(8) lists the same expectations as
// a dump.
func requireExpectsShown(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
	t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		requireEventually(t, func() (ours, theirs map[string]xmlExpect) {
			listed := run(t, ns, "-L expect -o xml -f "+family)
			return xmlExpects(t, c, family), listedExpects(t, listed)
		}, func(ours, theirs map[string]xmlExpect) {
			for key, ex := range ours {
				their := theirs[key]
				adaptTime(&ex.Meta.Timeout, their.Meta.Timeout)
				ours[key] = ex
			}
		})
	}
}

func xmlExpects(t *testing.T, c *conntrack.Conn, family string) map[string]xmlExpect {
	t.Helper()
	expects := make(map[string]xmlExpect)
	dump, err := c.DumpExpect()
	require.NoError(t, err)
	for _, ex := range dump {
		if _, name := familyOf(&ex.Tuple); name == family {
			shown := asXMLExpect(&ex)
			expects[shown.key()] = shown
		}
	}
	return expects
}

func listedExpects(t *testing.T, document string) map[string]xmlExpect {
	t.Helper()
	expects := make(map[string]xmlExpect)
	if document == "" {
		return expects
	}
	var table struct {
		XMLName xml.Name    `xml:"expect"`
		Expects []xmlExpect `xml:"flow"`
		Rest    []xmlRest   `xml:",any"`
	}
	require.NoError(t, xml.Unmarshal([]byte(document), &table))
	require.Empty(t, table.Rest)
	for _, ex := range table.Expects {
		require.NotContains(t, expects, ex.key())
		expects[ex.key()] = ex
	}
	return expects
}

// key returns a string that identifies ex.
func (ex *xmlExpect) key() string {
	return fmt.Sprint(ex.Layer3.Expected, ex.Layer4.Expected, ex.Layer4.Name)
}

// TestConntrackListsExpects asserts that conntrack(8) lists the expectations
// that helpers and this package create.
func TestConntrackListsExpects(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	ftp4, ftp6 := newMaster("ftp", tcp, client4, server4), newMaster("ftp", tcp, client6, server6)
	made := func(master conntrack.Flow, change func(ex *conntrack.Expect)) func(*testing.T, *nstest.NS, *conntrack.Conn) {
		return func(t *testing.T, _ *nstest.NS, c *conntrack.Conn) {
			create(t, c, master)
			dst := other4
			if master.TupleOrig.IP.IsIPv6() {
				dst = server6
			}
			ex := newExpect(master, dst)
			change(&ex)
			require.NoError(t, c.CreateExpect(ex))
		}
	}
	tests := []struct {
		name string
		make func(t *testing.T, ns *nstest.NS, c *conntrack.Conn)
	}{
		{"FTP", func(_ *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
			ns.Helper("ftp", tcp, 8080)
			p := ns.TCP(client4, server4)
			p.Send([]byte("USER anonymous\r\n"))
			p.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
		}},
		{"FTP IPv6", func(_ *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
			ns.Helper("ftp", tcp, 8080)
			p := ns.TCP(client6, server6)
			p.Send([]byte("USER anonymous\r\n"))
			p.Send(fmt.Appendf(nil, "EPRT |2|%s|51212|\r\n", client6.Addr()))
		}},
		{"IPv4", made(ftp4, func(*conntrack.Expect) {})},
		{"IPv6", made(ftp6, func(*conntrack.Expect) {})},
		{"source network and port", made(ftp4, func(ex *conntrack.Expect) {
			ex.Tuple.IP.SourceAddress = netip.MustParseAddr("127.0.1.0")
			ex.Mask.IP.SourceAddress = netip.MustParseAddr("255.255.255.0")
			ex.Tuple.Proto.SourcePort, ex.Mask.Proto.SourcePort = 0x1200, 0xff00
		})},
		{"class", made(newMaster("sip", udp, client4, server4), func(ex *conntrack.Expect) { ex.Class = 1 })},
		{"flags", made(ftp4, func(ex *conntrack.Expect) { ex.Flags = conntrack.ExpectPermanent | conntrack.ExpectInactive })},
		{"function", made(ftp4, func(ex *conntrack.Expect) { ex.Function = "nat-follow-master" })},
		{"NAT", made(ftp4, func(ex *conntrack.Expect) {
			ex.NAT.Direction = true
			ex.NAT.Tuple = tuple(tcp, server4, netip.MustParseAddrPort("0.0.0.0:0"))
		})},
		{"zone", made(with(ftp4, func(f *conntrack.Flow) { f.Zone = 7 }), func(ex *conntrack.Expect) { ex.Zone = 7 })},
		{"several", func(t *testing.T, _ *nstest.NS, c *conntrack.Conn) {
			create(t, c, ftp4, ftp6)
			require.NoError(t, c.CreateExpect(newExpect(ftp4, other4)))
			require.NoError(t, c.CreateExpect(newExpect(ftp6, server6)))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			tt.make(t, ns, c)
			expects, err := c.DumpExpect()
			require.NoError(t, err)
			require.NotEmpty(t, expects)
			requireExpectsShown(t, ns, c)
			require.Equal(t, strconv.Itoa(len(xmlExpects(t, c, "ipv4"))), strings.TrimSpace(run(t, ns, "-C expect")))

			run(t, ns, "-F expect")
			expects, err = c.DumpExpect()
			require.NoError(t, err)
			require.Empty(t, expects)
			requireShown(t, ns, c)
		})
	}
}

// TestConntrackCreatesExpects asserts which expectations conntrack -I expect
// creates.
func TestConntrackCreatesExpects(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const (
		tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
		all6     = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
		ports    = " --sport 40000 --dport 8080 --tuple-port-src 5 --tuple-port-dst 6 --mask-port-src 0 --mask-port-dst 65535"
	)
	at := netip.MustParseAddrPort
	// For TCP, it omits the protocol, and without that the kernel ignores the
	// ports.
	lost := func(t conntrack.Tuple) conntrack.Tuple { return conntrack.Tuple{IP: t.IP} }
	if !nstest.OldConntrack(t) {
		lost = func(t conntrack.Tuple) conntrack.Tuple { return t }
	}
	tests := []struct {
		name        string
		master      conntrack.Flow
		args        string
		tuple, mask conntrack.Tuple
	}{
		{
			"TCP", newMaster("ftp", tcp, client4, server4),
			"-p tcp -s 127.0.0.2 -d 127.0.0.1 --tuple-src 10.0.0.1 --tuple-dst 10.0.0.2 --mask-src 255.255.255.0 --mask-dst 255.255.255.255",
			lost(tuple(tcp, at("10.0.0.1:5"), at("10.0.0.2:6"))), lost(tuple(tcp, at("255.255.255.0:0"), at("255.255.255.255:65535"))),
		},
		{
			"UDP", newMaster("tftp", udp, client4, server4),
			"-p udp -s 127.0.0.2 -d 127.0.0.1 --tuple-src 10.0.0.1 --tuple-dst 10.0.0.2 --mask-src 255.255.255.0 --mask-dst 255.255.255.255",
			tuple(udp, at("10.0.0.1:5"), at("10.0.0.2:6")), tuple(udp, at("255.255.255.0:0"), at("255.255.255.255:65535")),
		},
		{
			"UDP IPv6", newMaster("tftp", udp, client6, server6),
			"-p udp -s fd00::1 -d ::1 --tuple-src 2001:db8::1 --tuple-dst 2001:db8::2 --mask-src ffff:: --mask-dst " + all6,
			tuple(udp, at("[2001:db8::1]:5"), at("[2001:db8::2]:6")), tuple(udp, at("[ffff::]:0"), at("["+all6+"]:65535")),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			create(t, c, tt.master)
			run(t, ns, "-I expect -t 100 "+tt.args+ports)
			expects, err := c.DumpExpect()
			require.NoError(t, err)
			require.Len(t, expects, 1)
			require.Equal(t, conntrack.Expect{
				ID:          expects[0].ID,
				Timeout:     expects[0].Timeout,
				TupleMaster: tt.master.TupleOrig,
				Tuple:       tt.tuple,
				Mask:        tt.mask,
				HelpName:    tt.master.Helper.Name,
			}, expects[0])
			requireExpectsShown(t, ns, c)
		})
	}
}

// TestConntrackDeletesExpects asserts that conntrack -D expect deletes one of
// two expectations.
func TestConntrackDeletesExpects(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	ns := nstest.New(t)
	c := dial(t, ns)
	// A master with this helper can have only one expectation.
	ftp4 := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	ftp6 := newMaster("ftp", unix.IPPROTO_TCP, client6, server6)
	create(t, c, ftp4, ftp6)
	require.NoError(t, c.CreateExpect(newExpect(ftp4, other4)))
	require.NoError(t, c.CreateExpect(newExpect(ftp6, server6)))

	const ports = " --sport 0 --dport 9090 --reply-port-src 9090 --reply-port-dst 0"
	run(t, ns, "-G expect -p udp -s 127.0.0.9 -d 127.0.0.3"+ports)
	// It does not count the deleted expectation, so it reports failure.
	_, message, err := try(t, ns, "-D expect -p udp -s 127.0.0.9 -d 127.0.0.3"+ports)
	require.Error(t, err)
	require.NotContains(t, message, "failed")
	expects, err := c.DumpExpect()
	require.NoError(t, err)
	require.Len(t, expects, 1)
	require.Equal(t, newExpect(ftp6, server6).Tuple, expects[0].Tuple)
	requireExpectsShown(t, ns, c)
}
