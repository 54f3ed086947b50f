//go:build linux

package conntrack

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/netfilter"
)

// These flags are described in testdata/README.md.
var (
	captureFlag = flag.Bool("capture", false, "capture the golden messages from the running kernel")
	updateFlag  = flag.Bool("update", false, "write the values that the golden messages decode to")
)

// captureVariable makes -capture print the files as well. It is for machines
// whose files are lost.
const captureVariable = "CONNTRACK_TEST_CAPTURE"

// A record is a file of testdata: a message from a kernel and the decoded
// value.
type record struct {
	Kernel    string          `json:"kernel"`
	About     string          `json:"about"`
	ByteOrder string          `json:"byteOrder"`
	Message   string          `json:"message"`
	Type      string          `json:"type"`
	Value     json.RawMessage `json:"value"`
}

// TestGolden asserts that each message decodes to the recorded value. It also
// checks the value against the traffic that caused the message.
func TestGolden(t *testing.T) {
	if *captureFlag || os.Getenv(captureVariable) != "" {
		captureGoldens(t)
	}
	seen := make(map[string]bool)
	for _, file := range goldenFiles(t) {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		seen[name] = true
		t.Run(filepath.Base(filepath.Dir(file))+"/"+name, func(t *testing.T) {
			i := slices.IndexFunc(goldens, func(g golden) bool { return g.name == name })
			require.GreaterOrEqual(t, i, 0, "a file that no golden is for")
			testGolden(t, &goldens[i], file)
		})
	}
	for _, g := range goldens {
		assert.True(t, seen[g.name], "no file for %s", g.name)
	}
}

func testGolden(t *testing.T, g *golden, file string) {
	r := readRecord(t, file)
	got, err := g.kind.decode(r.message(t))
	require.NoError(t, err)
	g.check(t, got)
	if *updateFlag {
		r.Value = valueJSON(t, got)
		writeRecord(t, file, r)
		return
	}
	require.Equal(t, r.Type, fmt.Sprintf("%T", got))
	require.JSONEq(t, string(r.Value), string(valueJSON(t, got)))
}

func goldenFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.json")
	require.NoError(t, err)
	return files
}

func readRecord(t testing.TB, file string) record {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var r record
	require.NoError(t, json.Unmarshal(b, &r))
	return r
}

func writeRecord(t testing.TB, file string, r record) {
	t.Helper()
	b, err := json.MarshalIndent(r, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(b, '\n'), 0o644))
}

// message returns the message in the byte order of this machine.
func (r *record) message(t testing.TB) netlink.Message {
	t.Helper()
	b, err := hex.DecodeString(r.Message)
	require.NoError(t, err)
	for _, from := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if r.ByteOrder == from.String() && from != nativeOrder() {
			swapMessage(b, from)
		}
	}
	return parseMessage(b)
}

func nativeOrder() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

func parseMessage(b []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Length:   binary.NativeEndian.Uint32(b),
			Type:     netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])),
			Flags:    netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
			Sequence: binary.NativeEndian.Uint32(b[8:]),
			PID:      binary.NativeEndian.Uint32(b[12:]),
		},
		Data: b[unix.NLMSG_HDRLEN:],
	}
}

// swapMessage converts the netlink header and the headers of all attributes
// from one byte order to the other. The values of attributes are in network
// byte order on all machines.
func swapMessage(b []byte, from binary.ByteOrder) {
	for _, field := range []struct{ start, end int }{{0, 4}, {4, 6}, {6, 8}, {8, 12}, {12, 16}} {
		slices.Reverse(b[field.start:field.end])
	}
	swapAttributes(b[unix.NLMSG_HDRLEN+sizeofNfgenmsg:], from)
}

const sizeofNfgenmsg = 4

func swapAttributes(b []byte, from binary.ByteOrder) {
	for len(b) > 0 {
		n, typ := int(from.Uint16(b)), from.Uint16(b[2:])
		slices.Reverse(b[:2])
		slices.Reverse(b[2:4])
		if typ&unix.NLA_F_NESTED != 0 {
			swapAttributes(b[4:n], from)
		}
		b = b[min((n+3)&^3, len(b)):]
	}
}

// valueJSON returns the JSON of the value that v points to, without zero
// fields.
func valueJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(withoutZeroes(reflect.ValueOf(v).Elem()))
	require.NoError(t, err)
	return b
}

func withoutZeroes(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Time:
		return x.UTC()
	case netip.Addr:
		return x
	}
	switch v.Kind() {
	case reflect.Uint8, reflect.Uint32:
		return v.Uint() // even if the type has names
	case reflect.Pointer:
		return withoutZeroes(v.Elem())
	case reflect.Struct:
		fields := make(map[string]any)
		for i := range v.NumField() {
			if f := v.Field(i); f.CanInterface() && !f.IsZero() {
				fields[v.Type().Field(i).Name] = withoutZeroes(f)
			}
		}
		return fields
	}
	return v.Interface()
}

// A kind is a kind of message.
type kind struct {
	// request asks the kernel for such messages. It is nil for events.
	request *nfnl.Header
	decode  func(m netlink.Message) (any, error)
}

var (
	flowKind = &kind{
		request: &nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlink, MessageType: ctGet, Flags: netlink.Dump},
		decode:  decoder(func(f *Flow, _ nfnl.Header, b []byte) error { return f.unmarshal(b, nil) }),
	}
	expectKind = &kind{
		request: &nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlinkExp, MessageType: expGet, Flags: netlink.Dump},
		decode:  decoder(func(ex *Expect, _ nfnl.Header, b []byte) error { return ex.unmarshal(b, nil) }),
	}
	statsKind = &kind{
		request: &nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlink, MessageType: ctGetStatsCPU, Flags: netlink.Dump},
		decode: decoder(func(s *Stats, h nfnl.Header, b []byte) error {
			s.CPUID = h.ResourceID
			return s.unmarshal(b)
		}),
	}
	statsExpectKind = &kind{
		request: &nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlinkExp, MessageType: expGetStatsCPU, Flags: netlink.Dump},
		decode: decoder(func(s *StatsExpect, h nfnl.Header, b []byte) error {
			s.CPUID = h.ResourceID
			return s.unmarshal(b)
		}),
	}
	statsGlobalKind = &kind{
		request: &nfnl.Header{SubsystemID: nfnl.NFSubsysCTNetlink, MessageType: ctGetStats},
		decode:  decoder(func(s *StatsGlobal, _ nfnl.Header, b []byte) error { return s.unmarshal(b) }),
	}
	eventKind = &kind{decode: func(m netlink.Message) (any, error) {
		e := new(Event)
		return e, e.Unmarshal(m)
	}}
)

func decoder[T any](unmarshal func(*T, nfnl.Header, []byte) error) func(netlink.Message) (any, error) {
	return func(m netlink.Message) (any, error) {
		h, attrs, err := nfnl.DecodeMessage(m)
		if err != nil {
			return nil, err
		}
		v := new(T)
		return v, unmarshal(v, h, attrs)
	}
}

// These are the ends of the connections in the goldens.
var (
	client4 = netip.MustParseAddrPort("127.0.0.2:40000")
	server4 = netip.MustParseAddrPort("127.0.0.1:8080")
	other4  = netip.MustParseAddrPort("127.0.0.100:9090")
	client6 = netip.MustParseAddrPort("[fd00::1]:40000")
	server6 = netip.MustParseAddrPort("[::1]:8080")
	other6  = netip.MustParseAddrPort("[::1]:9090")
)

const replied = StatusSeenReply | StatusConfirmed

// These are states of the kernel's enum tcp_conntrack and enum sctp_conntrack.
const (
	tcpSynSent      = 1
	tcpEstablished  = 3
	tcpTimeWait     = 7
	tcpClose        = 8
	sctpEstablished = 4
)

func checkFlow(check func(*testing.T, *Flow)) func(*testing.T, any) {
	return func(t *testing.T, v any) { check(t, v.(*Flow)) }
}

func checkExpect(check func(*testing.T, *Expect)) func(*testing.T, any) {
	return func(t *testing.T, v any) { check(t, v.(*Expect)) }
}

// checkEvent returns a function that checks the type of an event and its flow
// or expectation.
func checkEvent[T Flow | Expect](typ EventType, check func(*testing.T, *T)) func(*testing.T, any) {
	return func(t *testing.T, v any) {
		e := v.(*Event)
		require.Equal(t, typ, e.Type)
		var entity *T
		switch p := any(&entity).(type) {
		case **Flow:
			*p = e.Flow
			require.Nil(t, e.Expect)
		case **Expect:
			*p = e.Expect
			require.Nil(t, e.Flow)
		}
		check(t, entity)
	}
}

// ends returns a Tuple with ports.
func ends(proto uint8, src, dst netip.AddrPort) Tuple {
	return Tuple{
		IP:    IPTuple{SourceAddress: src.Addr(), DestinationAddress: dst.Addr()},
		Proto: ProtoTuple{Protocol: proto, SourcePort: src.Port(), DestinationPort: dst.Port()},
	}
}

// requireEnds asserts that f goes from src to dst, and its replies back.
func requireEnds(t *testing.T, f *Flow, proto uint8, src, dst netip.AddrPort) {
	t.Helper()
	require.Equal(t, ends(proto, src, dst), f.TupleOrig)
	require.Equal(t, ends(proto, dst, src), f.TupleReply)
}

// requireAcct asserts that f has counters and a start time.
func requireAcct(t *testing.T, f *Flow) {
	t.Helper()
	require.False(t, f.CountersOrig.Direction)
	require.True(t, f.CountersReply.Direction)
	require.NotZero(t, f.CountersOrig.Packets)
	require.NotZero(t, f.CountersReply.Packets)
	require.Greater(t, f.CountersOrig.Bytes, f.CountersOrig.Packets*20)
	require.Greater(t, f.CountersReply.Bytes, f.CountersReply.Packets*20)
	require.Greater(t, f.Timestamp.Start.Year(), 2024)
	require.Less(t, f.Timestamp.Start.Year(), 2100)
}

// A golden is a message to capture.
type golden struct {
	name  string // file name
	about string
	kind  *kind
	until release.Release // the first release without such messages, or zero

	// traffic makes the kernel have or send the message, in a namespace created
	// with opts.
	opts    []nstest.Option
	traffic func(t *testing.T, n *nstest.NS)
	// pick selects the message among others. If it is nil, there must be no
	// others, or the first event is used.
	pick func(v any) bool

	// check checks the decoded value without using the code under test.
	check func(t *testing.T, v any)
}

var acct = []nstest.Option{nstest.Accounting(), nstest.Timestamps()}

// This is the port in "PORT 127,0,0,2,200,10" and "EPRT |2|fd00::1|51210|".
const ftpDataPort = 200<<8 | 10

var (
	ftpData4 = netip.AddrPortFrom(client4.Addr(), ftpDataPort)
	ftpData6 = netip.AddrPortFrom(client6.Addr(), ftpDataPort)
)

var goldens = []golden{
	{
		name:    "flow-tcp-ipv4",
		about:   "an established TCP connection over IPv4, neither counters nor timestamps",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.TCP(client4, server4) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, replied|StatusAssured, f.Status.Value)
			require.EqualValues(t, tcpEstablished, f.ProtoInfo.TCP.State)
			require.Greater(t, f.Timeout, uint32(400_000))
			require.NotZero(t, f.ID)
			require.NotZero(t, f.Use)
			require.Zero(t, f.CountersOrig)
			require.Zero(t, f.CountersReply)
			require.Zero(t, f.Timestamp)
		}),
	},
	{
		name:  "flow-tcp-ipv6",
		about: "an established TCP connection over IPv6 that sent 1000 bytes and got 100, with counters and timestamp",
		kind:  flowKind,
		opts:  acct,
		traffic: func(_ *testing.T, n *nstest.NS) {
			p := n.TCP(client6, server6)
			p.Send(make([]byte, 1000))
			p.Reply(make([]byte, 100))
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client6, server6)
			require.Equal(t, replied|StatusAssured, f.Status.Value)
			require.EqualValues(t, tcpEstablished, f.ProtoInfo.TCP.State)
			requireAcct(t, f)
			require.Greater(t, f.CountersOrig.Bytes, uint64(1000))
			require.Less(t, f.CountersReply.Bytes, uint64(1000))
			require.Zero(t, f.Timestamp.Stop)
		}),
	},
	{
		name:    "flow-tcp-time-wait",
		about:   "a TCP connection over IPv4 that was closed",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.TCP(client4, server4).Close() },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.EqualValues(t, tcpTimeWait, f.ProtoInfo.TCP.State)
			require.LessOrEqual(t, f.Timeout, uint32(120))
		}),
	},
	{
		name:    "flow-udp-ipv4",
		about:   "a UDP datagram of 4 bytes and a reply of 4 bytes over IPv4, with counters and timestamp",
		kind:    flowKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.UDP(client4, server4, true) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client4, server4)
			require.Equal(t, replied, f.Status.Value)
			require.Equal(t, Counter{Packets: 1, Bytes: 32}, f.CountersOrig)
			require.Equal(t, Counter{Direction: true, Packets: 1, Bytes: 32}, f.CountersReply)
			requireAcct(t, f)
			require.Zero(t, f.ProtoInfo)
		}),
	},
	{
		name:    "flow-udp-ipv6-unreplied",
		about:   "a UDP datagram over IPv6 without a reply, neither counters nor timestamps",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.UDP(client6, server6, false) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client6, server6)
			require.Equal(t, StatusConfirmed, f.Status.Value)
			require.NotZero(t, f.Timeout)
			require.LessOrEqual(t, f.Timeout, uint32(30))
			require.Zero(t, f.CountersOrig)
		}),
	},
	{
		name:    "flow-icmp",
		about:   "an ICMP echo request with id 4660 from 127.0.0.1 to itself and its reply, with counters and timestamp",
		kind:    flowKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.ICMPEcho(server4.Addr(), 0x1234) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			ip := IPTuple{SourceAddress: server4.Addr(), DestinationAddress: server4.Addr()}
			require.Equal(t, Tuple{IP: ip, Proto: ProtoTuple{
				Protocol: unix.IPPROTO_ICMP, ICMPv4: true, ICMPType: 8, ICMPID: 0x1234,
			}}, f.TupleOrig)
			require.Equal(t, Tuple{IP: ip, Proto: ProtoTuple{
				Protocol: unix.IPPROTO_ICMP, ICMPv4: true, ICMPType: 0, ICMPID: 0x1234,
			}}, f.TupleReply)
			require.Equal(t, replied, f.Status.Value)
			require.Equal(t, Counter{Packets: 1, Bytes: 28}, f.CountersOrig)
			requireAcct(t, f)
		}),
	},
	{
		name:    "flow-icmpv6",
		about:   "an ICMPv6 echo request with id 4660 from ::1 to itself and its reply",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.ICMPEcho(server6.Addr(), 0x1234) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			ip := IPTuple{SourceAddress: server6.Addr(), DestinationAddress: server6.Addr()}
			require.Equal(t, Tuple{IP: ip, Proto: ProtoTuple{
				Protocol: unix.IPPROTO_ICMPV6, ICMPv6: true, ICMPType: 128, ICMPID: 0x1234,
			}}, f.TupleOrig)
			require.Equal(t, Tuple{IP: ip, Proto: ProtoTuple{
				Protocol: unix.IPPROTO_ICMPV6, ICMPv6: true, ICMPType: 129, ICMPID: 0x1234,
			}}, f.TupleReply)
			require.Equal(t, replied, f.Status.Value)
		}),
	},
	{
		name:    "flow-sctp-ipv4",
		about:   "an established SCTP association over IPv4",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.SCTP(client4, server4) },
		check:   checkFlow(func(t *testing.T, f *Flow) { requireSCTP(t, f, client4, server4) }),
	},
	{
		name:    "flow-sctp-ipv6",
		about:   "an established SCTP association over IPv6, with counters and timestamp",
		kind:    flowKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.SCTP(client6, server6) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireSCTP(t, f, client6, server6)
			requireAcct(t, f)
			require.EqualValues(t, 2, f.CountersOrig.Packets)
			require.EqualValues(t, 2, f.CountersReply.Packets)
		}),
	},
	{
		name:    "flow-gre-ipv4",
		about:   "a packet of PPTP's GRE with call ID 48879 over IPv4; the keys are in the ports' attributes",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.GRE(client4.Addr(), server4.Addr(), 0xbeef) },
		check:   checkFlow(func(t *testing.T, f *Flow) { requireGRE(t, f, client4.Addr(), server4.Addr()) }),
	},
	{
		name:    "flow-gre-ipv6",
		about:   "a packet of PPTP's GRE with call ID 48879 over IPv6, with counters and timestamp",
		kind:    flowKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.GRE(client6.Addr(), server6.Addr(), 0xbeef) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireGRE(t, f, client6.Addr(), server6.Addr())
			require.Equal(t, Counter{Packets: 1, Bytes: 48}, f.CountersOrig)
			require.Equal(t, Counter{Direction: true}, f.CountersReply)
		}),
	},
	{
		name:  "flow-dccp",
		about: "a DCCP flow over IPv4 that was created in state 3 (PARTOPEN), role 1 (server), sequence number 0x010203040506",
		kind:  flowKind,
		until: release.Release{Major: 6, Minor: 17},
		opts:  []nstest.Option{nstest.NoTracking()},
		traffic: func(t *testing.T, n *nstest.NS) {
			f := newGoldenFlow(unix.IPPROTO_DCCP)
			f.ProtoInfo.DCCP = &goldenDCCP
			createFlow(t, n, f)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_DCCP, client4, server4)
			require.Equal(t, ProtoInfo{DCCP: &goldenDCCP}, f.ProtoInfo)
		}),
	},
	{
		name:    "flow-other-protocol",
		about:   "a packet of IP protocol 253 over IPv4: the tuples have no ports",
		kind:    flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) { n.Raw(253, client4.Addr(), server4.Addr(), []byte("hello")) },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, 253, netip.AddrPortFrom(client4.Addr(), 0), netip.AddrPortFrom(server4.Addr(), 0))
			require.Equal(t, StatusConfirmed, f.Status.Value)
		}),
	},
	{
		name:  "flow-dnat-ipv4",
		about: "a TCP connection over IPv4 whose destination is translated from 127.0.0.1:8080 to 127.0.0.100:9090",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.DNAT(unix.IPPROTO_TCP, server4, other4)
			n.TCPThrough(client4, server4, other4)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), f.TupleOrig)
			require.Equal(t, ends(unix.IPPROTO_TCP, other4, client4), f.TupleReply)
			require.True(t, f.Status.DstNAT())
			require.True(t, f.Status.DstNATDone())
			require.False(t, f.Status.SrcNAT())
		}),
	},
	{
		name:  "flow-snat-ipv6",
		about: "a UDP exchange over IPv6 whose source is translated from [fd00::1]:40000 to [::1]:9090",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.SNAT(unix.IPPROTO_UDP, server6, other6)
			n.UDP(client6, server6, true)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			require.Equal(t, ends(unix.IPPROTO_UDP, client6, server6), f.TupleOrig)
			require.Equal(t, ends(unix.IPPROTO_UDP, server6, other6), f.TupleReply)
			require.True(t, f.Status.SrcNAT())
			require.True(t, f.Status.SrcNATDone())
			require.False(t, f.Status.DstNAT())
		}),
	},
	{
		name:  "flow-mark",
		about: "a TCP connection that a rule marked with 0xdeadbeef",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Mark(unix.IPPROTO_TCP, server4.Port(), 0xdeadbeef)
			n.TCP(client4, server4)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, uint32(0xdeadbeef), f.Mark)
		}),
	},
	{
		name:  "flow-labels",
		about: "a UDP exchange that a rule gave the labels 0102030405060708090a0b0c0d0e0f10",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Label(unix.IPPROTO_UDP, server4.Port(), [16]byte(goldenLabels))
			n.UDP(client4, server4, true)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client4, server4)
			require.Equal(t, goldenLabels, f.Labels)
			require.Empty(t, f.LabelsMask)
		}),
	},
	{
		name:  "flow-helper",
		about: "a TCP connection that a rule put under the care of the helper ftp",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Helper("ftp", unix.IPPROTO_TCP, server4.Port())
			n.TCP(client4, server4)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, "ftp", f.Helper.Name)
			require.Empty(t, f.Helper.Info)
			require.True(t, f.Status.Helper())
		}),
	},
	{
		name:  "flow-zone",
		about: "a TCP connection over IPv6 that is tracked in zone 258 in both directions",
		kind:  flowKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Zone(unix.IPPROTO_TCP, server6.Port(), 258)
			n.TCP(client6, server6)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client6, server6)
			require.EqualValues(t, 258, f.Zone)
		}),
	},
	{
		name:  "flow-zone-original",
		about: "a UDP flow that was created in zone 258 in the original direction alone",
		kind:  flowKind,
		opts:  []nstest.Option{nstest.NoTracking()},
		traffic: func(t *testing.T, n *nstest.NS) {
			f := newGoldenFlow(unix.IPPROTO_UDP)
			f.TupleOrig.Zone = 258
			createFlow(t, n, f)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			orig := ends(unix.IPPROTO_UDP, client4, server4)
			orig.Zone = 258
			require.Equal(t, orig, f.TupleOrig)
			require.Equal(t, ends(unix.IPPROTO_UDP, server4, client4), f.TupleReply)
			require.Zero(t, f.Zone)
		}),
	},
	{
		name:  "flow-synproxy",
		about: "a TCP flow that was created with the data of a SYN proxy",
		kind:  flowKind,
		opts:  []nstest.Option{nstest.NoTracking()},
		traffic: func(t *testing.T, n *nstest.NS) {
			f := newGoldenFlow(unix.IPPROTO_TCP)
			f.ProtoInfo.TCP = &ProtoInfoTCP{State: tcpEstablished}
			f.SynProxy = goldenSynProxy
			createFlow(t, n, f)
		},
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, goldenSynProxy, f.SynProxy)
			require.EqualValues(t, tcpEstablished, f.ProtoInfo.TCP.State)
		}),
	},
	{
		name: "flow-seqadj",
		about: "an FTP control connection whose source is translated to 127.0.0.100: " +
			"the helper made its PORT command 2 bytes longer",
		kind:    flowKind,
		traffic: natFTP,
		check: checkFlow(func(t *testing.T, f *Flow) {
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), f.TupleOrig)
			require.Equal(t, ends(unix.IPPROTO_TCP, server4, other4), f.TupleReply)
			require.True(t, f.Status.SeqAdjust())
			require.False(t, f.SeqAdjOrig.Direction)
			require.NotZero(t, f.SeqAdjOrig.Position)
			require.EqualValues(t, 0, f.SeqAdjOrig.OffsetBefore)
			require.EqualValues(t, 2, f.SeqAdjOrig.OffsetAfter)
			require.Equal(t, SequenceAdjust{Direction: true}, f.SeqAdjReply)
		}),
	},
	{
		name:  "flow-expected",
		about: "the data connection of an active FTP session, from the server to 127.0.0.2:51210",
		kind:  flowKind,
		traffic: func(t *testing.T, n *nstest.NS) {
			ftpPort(t, n)
			n.TCP(ftpServerData4, ftpData4)
		},
		pick: func(v any) bool { return v.(*Flow).TupleMaster.filled() },
		check: checkFlow(func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, ftpServerData4, ftpData4)
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), f.TupleMaster)
			require.Equal(t, replied|StatusAssured|StatusExpected, f.Status.Value)
		}),
	},
	{
		name:    "event-new-tcp",
		about:   "the event of a new TCP connection over IPv4: the SYN",
		kind:    eventKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.TCP(client4, server4) },
		check: checkEvent(EventNew, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.Equal(t, StatusConfirmed, f.Status.Value)
			require.EqualValues(t, tcpSynSent, f.ProtoInfo.TCP.State)
			require.NotZero(t, f.ID)
		}),
	},
	{
		name:    "event-update-tcp",
		about:   "the event of a TCP connection over IPv6 that was answered and established",
		kind:    eventKind,
		opts:    acct,
		traffic: func(_ *testing.T, n *nstest.NS) { n.TCP(client6, server6) },
		pick:    func(v any) bool { return v.(*Event).Flow.ProtoInfo.TCP.State == tcpEstablished },
		check: checkEvent(EventUpdate, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client6, server6)
			require.Equal(t, replied|StatusAssured, f.Status.Value)
		}),
	},
	{
		name: "event-destroy-tcp",
		about: "the event of the end of a TCP connection over IPv4 that was reset and timed out, " +
			"with counters and timestamps",
		kind: eventKind,
		opts: acct,
		traffic: func(t *testing.T, n *nstest.NS) {
			n.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_close", "0")
			n.TCP(client4, server4).Abort()
			// A dump removes expired flows.
			require.Empty(t, dumpFlows(t, n))
		},
		pick: func(v any) bool { return v.(*Event).Type == EventDestroy },
		check: checkEvent(EventDestroy, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_TCP, client4, server4)
			require.True(t, f.Status.Dying())
			require.EqualValues(t, tcpClose, f.ProtoInfo.TCP.State)
			requireAcct(t, f)
			// The kernel sets the stop time back to when the timeout expired,
			// in jiffies.
			require.WithinDuration(t, f.Timestamp.Start, f.Timestamp.Stop, time.Second)
			require.Zero(t, f.Timeout)
		}),
	},
	{
		name:  "event-new-udp-ipv6",
		about: "the event of a new UDP flow over IPv6 that a rule gave labels, neither counters nor timestamps",
		kind:  eventKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.Label(unix.IPPROTO_UDP, server6.Port(), [16]byte(goldenLabels))
			n.UDP(client6, server6, false)
		},
		check: checkEvent(EventNew, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client6, server6)
			require.Equal(t, StatusConfirmed, f.Status.Value)
			require.Zero(t, f.Timestamp)
			require.Equal(t, goldenLabels, f.Labels)
		}),
	},
	{
		name:  "event-destroy-udp",
		about: "the event of a UDP flow with a mark that was deleted through netlink, with counters and timestamps",
		kind:  eventKind,
		opts:  acct,
		traffic: func(t *testing.T, n *nstest.NS) {
			n.Mark(unix.IPPROTO_UDP, server4.Port(), 0xdeadbeef)
			n.UDP(client4, server4, true)
			dialIn(t, n, func(c *Conn) error { return c.Flush() })
		},
		pick: func(v any) bool { return v.(*Event).Type == EventDestroy },
		check: checkEvent(EventDestroy, func(t *testing.T, f *Flow) {
			requireEnds(t, f, unix.IPPROTO_UDP, client4, server4)
			requireAcct(t, f)
			require.Equal(t, Counter{Packets: 1, Bytes: 32}, f.CountersOrig)
			require.True(t, f.Timestamp.Stop.After(f.Timestamp.Start))
			require.Equal(t, uint32(0xdeadbeef), f.Mark)
		}),
	},
	{
		name:    "event-expect-new",
		about:   "the event of an expectation by the helper ftp, after PORT 127,0,0,2,200,10",
		kind:    eventKind,
		traffic: func(t *testing.T, n *nstest.NS) { ftpPort(t, n) },
		pick:    func(v any) bool { return v.(*Event).Expect != nil },
		check: checkEvent(EventExpNew, func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server4, ftpData4)
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), ex.TupleMaster)
			require.NotZero(t, ex.Timeout)
		}),
	},
	{
		name:  "event-expect-destroy",
		about: "the event of an expectation that a connection fulfilled",
		kind:  eventKind,
		traffic: func(t *testing.T, n *nstest.NS) {
			ftpPort(t, n)
			n.TCP(ftpServerData4, ftpData4)
		},
		pick: func(v any) bool { return v.(*Event).Type == EventExpDestroy },
		check: checkEvent(EventExpDestroy, func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server4, ftpData4)
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), ex.TupleMaster)
		}),
	},
	{
		name:    "expect-ftp-ipv4",
		about:   "the expectation by the helper ftp after PORT 127,0,0,2,200,10",
		kind:    expectKind,
		traffic: func(t *testing.T, n *nstest.NS) { ftpPort(t, n) },
		check: checkExpect(func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server4, ftpData4)
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), ex.TupleMaster)
			require.Equal(t, "ftp", ex.HelpName)
			require.Zero(t, ex.NAT)
			require.NotZero(t, ex.ID)
			require.NotZero(t, ex.Timeout)
			require.LessOrEqual(t, ex.Timeout, uint32(300))
		}),
	},
	{
		name:  "expect-ftp-ipv6",
		about: "the expectation by the helper ftp after EPRT |2|fd00::1|51210|",
		kind:  expectKind,
		traffic: func(t *testing.T, n *nstest.NS) {
			n.Helper("ftp", unix.IPPROTO_TCP, server6.Port())
			ftpCommand(t, n.TCP(client6, server6), "EPRT |2|fd00::1|51210|")
		},
		check: checkExpect(func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server6, ftpData6)
			require.Equal(t, ends(unix.IPPROTO_TCP, client6, server6), ex.TupleMaster)
			require.Equal(t, "ftp", ex.HelpName)
		}),
	},
	{
		name:    "expect-nat",
		about:   "the expectation by the helper ftp after PORT 127,0,0,2,200,10, translated to 127.0.0.100",
		kind:    expectKind,
		traffic: natFTP,
		check: checkExpect(func(t *testing.T, ex *Expect) {
			requireExpect(t, ex, unix.IPPROTO_TCP, server4, netip.AddrPortFrom(other4.Addr(), ftpDataPort))
			require.Equal(t, ends(unix.IPPROTO_TCP, client4, server4), ex.TupleMaster)
			require.Equal(t, "nat-follow-master", ex.Function)
			require.True(t, ex.NAT.Direction)
			none := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
			port := netip.AddrPortFrom(netip.IPv4Unspecified(), ftpDataPort)
			require.Equal(t, ends(unix.IPPROTO_TCP, port, none), ex.NAT.Tuple)
		}),
	},
	{
		name: "stats",
		about: "the counters of CPU 1: two packets with a short TCP header, each seen twice; a flow that was dropped, " +
			"since the tuple it was to be translated to was taken; a flow that was created",
		kind:    statsKind,
		traffic: onCPU1(busy),
		pick:    func(v any) bool { return v.(*Stats).CPUID == 1 },
		check: func(t *testing.T, v any) {
			require.Equal(t, &Stats{CPUID: 1, Found: 1, Invalid: 4, Insert: 1, InsertFailed: 1, Drop: 1}, v)
		},
	},
	{
		name: "stats-expect",
		about: "the counters of CPU 1 for expectations: two FTP commands, each seen twice by the helper; " +
			"the last of the four expectations was fulfilled, the others were replaced",
		kind: statsExpectKind,
		traffic: onCPU1(func(t *testing.T, n *nstest.NS) {
			ftpCommand(t, ftpPort(t, n), "PORT 127,0,0,2,200,11")
			n.TCP(ftpServerData4, netip.AddrPortFrom(client4.Addr(), ftpDataPort+1))
		}),
		pick: func(v any) bool { return v.(*StatsExpect).CPUID == 1 },
		check: func(t *testing.T, v any) {
			require.Equal(t, &StatsExpect{CPUID: 1, New: 1, Create: 4, Delete: 4}, v)
		},
	},
	{
		name:  "stats-global",
		about: "a table with two flows",
		kind:  statsGlobalKind,
		traffic: func(_ *testing.T, n *nstest.NS) {
			n.UDP(client4, server4, true)
			n.UDP(client6, server6, true)
		},
		check: func(t *testing.T, v any) {
			s := v.(*StatsGlobal)
			require.EqualValues(t, 2, s.Entries)
			require.Greater(t, s.MaxEntries, uint32(1000))
		},
	},
}

var (
	goldenLabels   = []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	goldenDCCP     = ProtoInfoDCCP{State: 3, Role: 1, HandshakeSeq: 0x010203040506}
	goldenSynProxy = SynProxy{ISN: 0x01020304, ITS: 0x05060708, TSOff: 0x090a0b0c}

	// The FTP server's data connections come from here.
	ftpServerData4 = netip.AddrPortFrom(server4.Addr(), server4.Port()-1)
)

func requireSCTP(t *testing.T, f *Flow, src, dst netip.AddrPort) {
	t.Helper()
	requireEnds(t, f, unix.IPPROTO_SCTP, src, dst)
	require.Equal(t, ProtoInfo{SCTP: &ProtoInfoSCTP{
		State:        sctpEstablished,
		VTagOriginal: nstest.SCTPServerTag,
		VTagReply:    nstest.SCTPClientTag,
	}}, f.ProtoInfo)
	require.Equal(t, replied|StatusAssured, f.Status.Value)
}

func requireGRE(t *testing.T, f *Flow, src, dst netip.Addr) {
	t.Helper()
	requireEnds(t, f, unix.IPPROTO_GRE, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0xbeef))
	require.Equal(t, StatusConfirmed, f.Status.Value)
}

// requireExpect asserts that ex expects a connection from src's address, with
// any port, to dst.
func requireExpect(t *testing.T, ex *Expect, proto uint8, src, dst netip.AddrPort) {
	t.Helper()
	require.Equal(t, ends(proto, netip.AddrPortFrom(src.Addr(), 0), dst), ex.Tuple)
	ones, _ := netip.AddrFromSlice([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")[:src.Addr().BitLen()/8])
	require.Equal(t, ends(proto, netip.AddrPortFrom(ones, 0), netip.AddrPortFrom(ones, 0xffff)), ex.Mask)
}

// captureGoldens writes the files for the running kernel. It receives on a bare
// socket, so that this package does not affect the messages.
func captureGoldens(t *testing.T) {
	nstest.Require(t)
	running, err := release.Running()
	require.NoError(t, err)
	dir := filepath.Join("testdata", running.String())
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, g := range goldens {
		if g.until != (release.Release{}) && !running.Less(g.until) {
			continue
		}
		t.Run("capture/"+g.name, func(t *testing.T) {
			message, value := captureGolden(t, &g)
			r := record{
				Kernel:    kernelRelease(t),
				About:     g.about,
				ByteOrder: nativeOrder().String(),
				Message:   hex.EncodeToString(message),
				Type:      fmt.Sprintf("%T", value),
				Value:     valueJSON(t, value),
			}
			file := filepath.Join(dir, g.name+".json")
			writeRecord(t, file, r)
			if os.Getenv(captureVariable) != "" {
				printFile(t, file)
			}
		})
	}
}

// printFile prints a file in base64, with short lines.
func printFile(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	for part := range slices.Chunk(b, 60) {
		fmt.Printf("\ngolden: %s %s\n", file, base64.StdEncoding.EncodeToString(part))
	}
}

func kernelRelease(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	return unix.ByteSliceToString(name.Release[:])
}

// captureGolden returns the message and the decoded value.
func captureGolden(t *testing.T, g *golden) (message []byte, value any) {
	n := nstest.New(t, g.opts...)
	s := openBare(t, n)
	var next func() []byte
	if g.kind.request == nil {
		for _, group := range slices.Concat(netfilter.GroupsCT, netfilter.GroupsCTExp) {
			require.NoError(t, unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)))
		}
		g.traffic(t, n)
		next = s.next
	} else {
		g.traffic(t, n)
		next = s.replies(*g.kind.request)
	}
	for b := next(); b != nil; b = next() {
		v, err := g.kind.decode(parseMessage(b))
		require.NoError(t, err, "%x", b)
		if g.pick != nil && !g.pick(v) {
			continue
		}
		if message != nil {
			require.Fail(t, "more than one message", "%x\n%x", message, b)
		}
		message, value = b, v
		if g.kind.request == nil {
			break
		}
	}
	require.NotNil(t, message)
	return message, value
}

// A bareSocket is a netlink socket without buffering or decoding.
type bareSocket struct {
	t    *testing.T
	fd   int
	rest []byte // rest of the last datagram
}

func openBare(t *testing.T, n *nstest.NS) *bareSocket {
	s := &bareSocket{t: t}
	n.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	t.Cleanup(func() { unix.Close(s.fd) })
	require.NoError(t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	require.NoError(t, unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	return s
}

// next returns the next message.
func (s *bareSocket) next() []byte {
	s.t.Helper()
	if len(s.rest) == 0 {
		buf := make([]byte, 1<<16)
		size, _, err := unix.Recvfrom(s.fd, buf, 0)
		require.NoError(s.t, err)
		s.rest = buf[:size]
	}
	size := binary.NativeEndian.Uint32(s.rest)
	b := s.rest[:size:size]
	s.rest = s.rest[(size+3)&^3:]
	return b
}

// replies sends a request. It returns a function that returns the replies one
// by one, and then nil.
func (s *bareSocket) replies(h nfnl.Header) func() []byte {
	s.t.Helper()
	request := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+sizeofNfgenmsg)
	request = binary.NativeEndian.AppendUint16(request, uint16(h.SubsystemID)<<8|uint16(h.MessageType))
	request = binary.NativeEndian.AppendUint16(request, uint16(netlink.Request|netlink.Acknowledge|h.Flags))
	request = append(request, make([]byte, 8+sizeofNfgenmsg)...)
	require.NoError(s.t, unix.Sendto(s.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	return func() []byte {
		b := s.next()
		switch typ := binary.NativeEndian.Uint16(b[4:]); typ {
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			return nil
		default:
			return b
		}
	}
}

func dialIn(t *testing.T, n *nstest.NS, fn func(c *Conn) error) {
	t.Helper()
	c, err := Dial(n.Config())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, fn(c))
}

func newGoldenFlow(proto uint8) Flow {
	return NewFlow(proto, 0, client4.Addr(), server4.Addr(), client4.Port(), server4.Port(), 600, 0)
}

func createFlow(t *testing.T, n *nstest.NS, f Flow) {
	t.Helper()
	dialIn(t, n, func(c *Conn) error { return c.Create(f) })
}

func dumpFlows(t *testing.T, n *nstest.NS) (flows []Flow) {
	t.Helper()
	dialIn(t, n, func(c *Conn) (err error) {
		flows, err = c.Dump(nil)
		return err
	})
	return flows
}

// ftpPort makes an FTP client announce where it expects the data connection.
func ftpPort(t *testing.T, n *nstest.NS) *nstest.TCPPair {
	n.Helper("ftp", unix.IPPROTO_TCP, server4.Port())
	p := n.TCP(client4, server4)
	ftpCommand(t, p, "PORT 127,0,0,2,200,10")
	return p
}

// ftpCommand sends a command on the calling thread. It sends a line first,
// because the helper looks for commands where a line that it has seen ends.
func ftpCommand(t *testing.T, p *nstest.TCPPair, command string) {
	t.Helper()
	for _, line := range []string{"NOOP\r\n", command + "\r\n"} {
		_, err := p.Client.Write([]byte(line))
		require.NoError(t, err)
		_, err = io.ReadFull(p.Server, make([]byte, len(line)))
		require.NoError(t, err)
	}
}

// natFTP is like ftpPort with a translated client address. The server receives
// two bytes more than the client sent, and answers, so the kernel adjusts
// sequence numbers in both directions.
func natFTP(t *testing.T, n *nstest.NS) {
	n.SNAT(unix.IPPROTO_TCP, server4, other4)
	p := ftpPort(t, n)
	rest := make([]byte, 2)
	_, err := p.Server.Read(rest)
	require.NoError(t, err)
	require.Equal(t, "\r\n", string(rest))
	p.Reply([]byte("200 OK\r\n"))
}

// onCPU1 runs traffic on CPU 1. Over loopback, the CPU that sends packets also
// receives and tracks them.
func onCPU1(traffic func(*testing.T, *nstest.NS)) func(*testing.T, *nstest.NS) {
	return func(t *testing.T, n *nstest.NS) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var before, cpu1 unix.CPUSet
		require.NoError(t, unix.SchedGetaffinity(0, &before))
		cpu1.Set(1)
		require.NoError(t, unix.SchedSetaffinity(0, &cpu1))
		defer func() { require.NoError(t, unix.SchedSetaffinity(0, &before)) }()
		traffic(t, n)
	}
}

// busy makes the kernel count rare cases. Over loopback, packets that are
// untracked or seen by helpers are counted twice: when they go out and when
// they come in.
func busy(t *testing.T, n *nstest.NS) {
	n.Raw(unix.IPPROTO_TCP, client4.Addr(), server4.Addr(), []byte("short"))
	n.Raw(unix.IPPROTO_TCP, client4.Addr(), server4.Addr(), []byte("short"))
	// Two flows would be translated to the same tuple.
	n.SNAT(unix.IPPROTO_UDP, server4, other4)
	n.UDP(client4, server4, false)
	n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		err = unix.Sendto(fd, []byte("ping"), 0, &unix.SockaddrInet4{Port: int(server4.Port()), Addr: server4.Addr().As4()})
		require.ErrorIs(t, err, unix.EPERM)
		return nil
	})
	createFlow(t, n, newGoldenFlow(unix.IPPROTO_TCP))
}
