//go:build linux

package comparison_test

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// TestConntrackCreates asserts which flow conntrack -I creates with each option
// that its manual lists for it.
func TestConntrackCreates(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const (
		ends   = "-s 10.0.0.1 -d 10.0.0.2 "
		ends6  = "-s 2001:db8::1 -d 2001:db8::2 "
		ports  = "--sport 1000 --dport 53 "
		done   = conntrack.StatusSrcNATDone | conntrack.StatusDstNATDone
		srcNAT = done | conntrack.StatusSrcNAT
		dstNAT = done | conntrack.StatusDstNAT
	)
	const tcp, udp, sctp, gre = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_GRE
	src, dst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	src6, dst6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	at := netip.AddrPortFrom
	flow := func(proto uint8) conntrack.Flow { return flowBetween(proto, at(src, 1000), at(dst, 53)) }
	flow6 := func(proto uint8) conntrack.Flow { return flowBetween(proto, at(src6, 1000), at(dst6, 53)) }
	udpLite := func(of func(uint8) conntrack.Flow) conntrack.Flow {
		f := of(unix.IPPROTO_UDPLITE)
		if kernelAtLeast(t, 7, 2) { // which does not track it
			f.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: unix.IPPROTO_UDPLITE}
			f.TupleReply = f.TupleOrig.Reverse()
		}
		return f
	}
	icmp := func(proto uint8, src, dst netip.Addr, typ, code uint8, id uint16) conntrack.Flow {
		f := conntrack.Flow{TupleOrig: echoTuple(proto, src, dst, typ, id), Timeout: 120}
		f.TupleOrig.Proto.ICMPCode = code
		f.TupleReply = f.TupleOrig.Reverse()
		return f
	}
	// conntrack -I sets flags of its own, so that the kernel lets packets pass.
	withTCP := func(f conntrack.Flow, state uint8) conntrack.Flow {
		flags := uint8(conntrack.TCPFlagSACKPerm | conntrack.TCPFlagBeLiberal)
		if state >= conntrack.TCPStateTimeWait {
			flags |= conntrack.TCPFlagCloseInit
		}
		shown := conntrack.TCPFlags(flags, 0)
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: state, OriginalFlags: shown, ReplyFlags: shown}
		return f
	}
	withSCTP := func(f conntrack.Flow, state uint8) conntrack.Flow {
		f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: state, VTagOriginal: swapped(5), VTagReply: swapped(0xfffe)}
		return f
	}
	label := func(f conntrack.Flow, bits ...int) conntrack.Flow {
		f.Labels = make([]byte, 16)
		for _, bit := range bits {
			word := f.Labels[bit/32*4:]
			binary.NativeEndian.PutUint32(word, binary.NativeEndian.Uint32(word)|1<<(bit%32))
		}
		return f
	}
	status := func(f conntrack.Flow, s conntrack.StatusFlag) conntrack.Flow {
		f.Status.Value = s
		return f
	}
	// reply returns f with the given ends of the reply direction.
	reply := func(f conntrack.Flow, status conntrack.StatusFlag, src, dst string) conntrack.Flow {
		f.TupleReply = tuple(f.TupleOrig.Proto.Protocol, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
		f.Status.Value = status
		return f
	}

	old := nstest.OldConntrack(t)
	labels := []int{1, 33, 127}
	if !old {
		labels = []int{1, 127}
	}
	type test struct {
		name, args string
		want       conntrack.Flow
	}
	tests := []test{
		{"UDP", ends + "-p udp " + ports, flow(udp)},
		{"UDP IPv6", ends6 + "-p udp " + ports, flow6(udp)},
		{"UDP-Lite", ends + "-p udplite " + ports, udpLite(flow)},
		{"UDP-Lite IPv6", ends6 + "-p udplite " + ports, udpLite(flow6)},
		{"SCTP IPv6", ends6 + "-p sctp --state ESTABLISHED --orig-vtag 5 --reply-vtag 65534 " + ports, withSCTP(flow6(sctp), 4)},
		{"ICMP", ends + "-p icmp --icmp-type 8 --icmp-code 0 --icmp-id 77", icmp(unix.IPPROTO_ICMP, src, dst, 8, 0, 77)},
		{"ICMP code", ends + "-p icmp --icmp-type 13 --icmp-code 7", icmp(unix.IPPROTO_ICMP, src, dst, 13, 7, 0)},
		{"ICMPv6", ends6 + "-p icmpv6 --icmpv6-type 128 --icmpv6-code 2 --icmpv6-id 65535", icmp(unix.IPPROTO_ICMPV6, src6, dst6, 128, 2, 65535)},
		{"GRE keys", ends + "-p gre --srckey 1000 --dstkey 0x35", flow(gre)},
		{
			"GRE keys of replies", ends6 + "-p gre -r 2001:db8::2 -q 2001:db8::1 --srckey 0x3e8 --dstkey 53 --reply-key-src 7 --reply-key-dst 8",
			reply(flow6(gre), 0, "[2001:db8::2]:7", "[2001:db8::1]:8"),
		},
		{"other protocol", ends + "-p 253", flowBetween(253, at(src, 0), at(dst, 0))},
		{"ports of replies without addresses, which it ignores", ends + "-p udp --reply-port-src 5 --reply-port-dst 6 " + ports, flow(udp)},
		{
			"addresses of replies", ends + "-p udp -r 10.0.0.3 -q 10.0.0.4 --reply-port-src 5 --reply-port-dst 6 " + ports,
			reply(flow(udp), 0, "10.0.0.3:5", "10.0.0.4:6"),
		},
		{"replies alone", "-p udp -r 10.0.0.2 -q 10.0.0.1 --reply-port-src 53 --reply-port-dst 1000", flow(udp)},

		{"timeout", ends + "-p udp -t 4000 " + ports, with(flow(udp), func(f *conntrack.Flow) { f.Timeout = 4000 })},
		{"mark", ends + "-p udp -m 0xf00dbeef " + ports, with(flow(udp), func(f *conntrack.Flow) { f.Mark = 0xf00dbeef })},
		{"mark with a mask, which it ignores", ends + "-p udp -m 0x10/0x1 " + ports, with(flow(udp), func(f *conntrack.Flow) { f.Mark = 0x10 })},
		{"mark before the status flags", ends + "-p udp -m 0x10 -u ASSURED " + ports, with(flow(udp), func(f *conntrack.Flow) {
			f.Mark, f.Status.Value = 0x10, conntrack.StatusAssured
			if old {
				f.Mark = uint32(conntrack.StatusAssured)
			}
		})},
		{"mark after the status flags", ends + "-p udp -u ASSURED -m 0x10 " + ports, with(flow(udp), func(f *conntrack.Flow) {
			f.Mark, f.Status.Value = 0x10, conntrack.StatusAssured
		})},
		{"zone", ends + "-p udp -w 65535 " + ports, with(flow(udp), func(f *conntrack.Flow) { f.Zone = 65535 })},
		{"zone of the original direction", ends + "-p udp --orig-zone 7 " + ports, with(flow(udp), func(f *conntrack.Flow) { f.TupleOrig.Zone = 7 })},
		{"zone of the reply direction", ends6 + "-p udp --reply-zone 8 " + ports, with(flow6(udp), func(f *conntrack.Flow) { f.TupleReply.Zone = 8 })},
		{"a label", ends + "-p udp --label-add label0 " + ports, label(flow(udp), 0)},
		{"labels", ends + "-p udp --label-add label1,label33 --label-add label127 " + ports, label(flow(udp), labels...)},

		{"status ASSURED", ends + "-p udp -u ASSURED " + ports, status(flow(udp), conntrack.StatusAssured)},
		{"status SEEN_REPLY", ends + "-p udp -u SEEN_REPLY " + ports, status(flow(udp), conntrack.StatusSeenReply)},
		{"status FIXED_TIMEOUT", ends + "-p udp -u FIXED_TIMEOUT " + ports, status(flow(udp), conntrack.StatusFixedTimeout)},
		{"status UNSET", ends + "-p udp -u UNSET " + ports, flow(udp)},
		{"status OFFLOAD, which the kernel ignores", ends + "-p udp -u OFFLOAD " + ports, flow(udp)},
		{
			"several status flags", ends + "-p udp -u ASSURED,SEEN_REPLY,FIXED_TIMEOUT " + ports,
			status(flow(udp), conntrack.StatusAssured|conntrack.StatusSeenReply|conntrack.StatusFixedTimeout),
		},

		{"SNAT", ends + "-p udp -n 10.0.0.9 " + ports, reply(flow(udp), srcNAT, "10.0.0.2:53", "10.0.0.9:1000")},
		{"SNAT to a port", ends + "-p udp -n 10.0.0.9:77 " + ports, reply(flow(udp), srcNAT, "10.0.0.2:53", "10.0.0.9:77")},
		{"DNAT", ends + "-p udp -g 10.0.0.9 " + ports, reply(flow(udp), dstNAT, "10.0.0.9:53", "10.0.0.1:1000")},
		{"DNAT to a port", ends + "-p udp --dst-nat 10.0.0.9:77 " + ports, reply(flow(udp), dstNAT, "10.0.0.9:77", "10.0.0.1:1000")},
		{
			"SNAT and DNAT", ends + "-p udp --src-nat 10.0.0.8 --dst-nat 10.0.0.9:77 " + ports,
			reply(flow(udp), srcNAT|dstNAT, "10.0.0.9:77", "10.0.0.8:1000"),
		},
		{
			"IPv6 SNAT and DNAT", ends6 + "-p udp -n [2001:db8::8]:5 -g [2001:db8::9]:6 " + ports,
			reply(flow6(udp), srcNAT|dstNAT, "[2001:db8::9]:6", "[2001:db8::8]:5"),
		},
		{"IPv6 SNAT", ends6 + "-p udp -n 2001:db8::8 " + ports, reply(flow6(udp), srcNAT, "[2001:db8::2]:53", "[2001:db8::8]:1000")},
	}
	if kernelAtLeast(t, 6, 17) { // does not track it
		const dccp = unix.IPPROTO_DCCP
		tests = append(tests, test{"DCCP", ends + "-p dccp --role client --state OPEN " + ports, flowBetween(dccp, at(src, 0), at(dst, 0))})
	}
	for state := range uint8(conntrack.TCPStateClose + 1) {
		name := conntrack.TCPState(state).String()
		tests = append(tests, test{"TCP " + name, ends + "-p tcp --state " + name + " " + ports, withTCP(flow(tcp), state)})
	}
	tests = append(tests,
		test{"TCP LISTEN", ends + "-p tcp --state LISTEN " + ports, withTCP(flow(tcp), conntrack.TCPStateSynSent2)},
		test{"TCP IPv6", ends6 + "-p tcp --state ESTABLISHED " + ports, withTCP(flow6(tcp), conntrack.TCPStateEstablished)},
	)
	for state := range uint8(conntrack.SCTPStateShutdownAckSent + 1) {
		name := conntrack.SCTPState(state).String()
		args := ends + "-p sctp --orig-vtag 5 --reply-vtag 65534 --state " + name + " " + ports
		tests = append(tests, test{"SCTP " + name, args, withSCTP(flow(sctp), state)})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			ns.Labels()
			c := dial(t, ns)
			args := tt.args
			if !strings.Contains(args, "-t ") {
				args += " -t 120"
			}
			run(t, ns, "-I "+args)
			requireFlow(t, tt.want, dumpOne(t, c))
			requireFlow(t, tt.want, get(t, c, conntrack.Flow{TupleOrig: tt.want.TupleOrig, Zone: tt.want.Zone}))

			// After one of them has created the flow, the other cannot create
			// it again.
			_, message, err := try(t, ns, "-I "+args)
			require.Error(t, err)
			require.Contains(t, message, "Such conntrack exists")
			require.ErrorIs(t, c.Create(tt.want), fs.ErrExist)
			if !old && tt.want.Status.Value&(conntrack.StatusNATMask|conntrack.StatusFixedTimeout) != 0 {
				_, _, err := try(t, ns, "-A "+args)
				require.Error(t, err)
			} else {
				run(t, ns, "-A "+args)
			}
			requireFlow(t, tt.want, dumpOne(t, c))
		})
	}
}

// TestConntrackReloads asserts that flows that conntrack(8) saved and loaded
// are unchanged, except for what its format omits.
func TestConntrackReloads(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const tcp, udp, sctp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP
	ns := nstest.New(t)
	c := dial(t, ns)
	flags := conntrack.TCPFlags(conntrack.TCPFlagSACKPerm|conntrack.TCPFlagBeLiberal, 0) // conntrack(8) sets these
	create(t, c, slices.Concat(icmpFlows(), []conntrack.Flow{
		newFlow(1), newFlow6(1), flowBetween(unix.IPPROTO_GRE, client6, server6), flowBetween(253, client4, server4),
		with(newFlow(2), func(f *conntrack.Flow) { f.Zone = 7 }),
		with(newFlow(3), func(f *conntrack.Flow) { f.TupleOrig.Zone = 8 }),
		with(newFlow6(4), func(f *conntrack.Flow) { f.TupleReply.Zone = 9 }),
		with(newFlow(5), func(f *conntrack.Flow) {
			f.Status.Value = conntrack.StatusSeenReply | conntrack.StatusAssured | conntrack.StatusFixedTimeout
		}),
		with(newFlow(6), func(f *conntrack.Flow) { f.TupleReply = tuple(udp, other4, client4) }),
		with(flowBetween(tcp, client4, server4), func(f *conntrack.Flow) {
			f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: 3, OriginalFlags: flags | flags>>8, ReplyFlags: flags | flags>>8}
		}),
		with(flowBetween(sctp, client6, server6), func(f *conntrack.Flow) {
			f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: 4, VTagOriginal: 0x01020304, VTagReply: 0xffffffff}
		}),
	})...)
	before := flowsByTuple(t, c)
	file := filepath.Join(t.TempDir(), "flows")
	require.NoError(t, os.WriteFile(file, []byte(run(t, ns, "-L -o save")), 0o600))
	require.NoError(t, c.Flush())
	run(t, ns, "-R "+file)
	require.Equal(t, before, flowsByTuple(t, c))
}

// flowsByTuple returns the flows of the table, without the fields that are new
// after a reload.
func flowsByTuple(t *testing.T, c *conntrack.Conn) map[conntrack.Tuple]conntrack.Flow {
	t.Helper()
	dump, err := c.Dump(nil)
	require.NoError(t, err)
	flows := make(map[conntrack.Tuple]conntrack.Flow)
	for _, f := range dump {
		f.ID, f.Timeout, f.Use = 0, 0, 0
		flows[f.TupleOrig] = f
	}
	require.Len(t, flows, len(dump))
	return flows
}

// TestConntrackGets asserts that conntrack -G and Get return the same flow.
func TestConntrackGets(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	c := dial(t, ns)
	marked := with(flowBetween(unix.IPPROTO_UDP, client6, server6), func(f *conntrack.Flow) { f.Mark = 5 })
	create(t, c, marked)
	ns.SCTP(client4, server4)
	ns.ICMPEcho(server4.Addr(), 77)
	for args, f := range map[string]conntrack.Flow{
		"-p sctp -s 127.0.0.2 -d 127.0.0.1 --sport 40000 --dport 8080":               flowBetween(unix.IPPROTO_SCTP, client4, server4),
		"-p udp -s fd00::1 -d ::1 --sport 40000 --dport 8080":                        marked,
		"-p icmp -s 127.0.0.1 -d 127.0.0.1 --icmp-type 8 --icmp-code 0 --icmp-id 77": {TupleOrig: echoTuple(unix.IPPROTO_ICMP, server4.Addr(), server4.Addr(), 8, 77)},
	} {
		requireEventually(t, func() (ours, theirs map[string]xmlFlow) {
			got := get(t, c, f)
			return map[string]xmlFlow{fmt.Sprint(got.ID): asXML(&got, time.Now())}, listedFlows(t, run(t, ns, "-G -o xml,id,ktimestamp "+args))
		}, withinSecond)
	}
}

// TestConntrackRefused asserts that the kernel refuses the same requests of
// conntrack(8) and of this package, with the same error.
func TestConntrackRefused(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const udp = unix.IPPROTO_UDP
	flow := flowBetween(udp, netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("10.0.0.2:53"))
	const flowArgs = "-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 53 "
	tests := []struct {
		name, args, message string
		call                func(c *conntrack.Conn) error
		err                 error
	}{
		{
			"zones of both directions", "-I -t 9 --orig-zone 1 --reply-zone 2 " + flowArgs, "invalid parameters",
			func(c *conntrack.Conn) error {
				return c.Create(with(flow, func(f *conntrack.Flow) { f.TupleOrig.Zone, f.TupleReply.Zone = 1, 2 }))
			}, conntrack.ErrTwoZones,
		},
		{
			"status EXPECTED", "-I -t 9 -u EXPECTED " + flowArgs, "Device or resource busy",
			func(c *conntrack.Conn) error {
				return c.Create(with(flow, func(f *conntrack.Flow) { f.Status.Value = conntrack.StatusExpected }))
			}, unix.EBUSY,
		},
		{
			"flow that is not there", "-G " + flowArgs, "such conntrack doesn't exist",
			func(c *conntrack.Conn) error { _, err := c.Get(flow); return err }, unix.ENOENT,
		},
		{
			"expectation without master",
			"-I expect -t 9 -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 --tuple-src 10.0.0.3 --tuple-dst 10.0.0.4 " +
				"--mask-src 255.255.255.255 --mask-dst 255.255.255.255 --tuple-port-src 5 --tuple-port-dst 6 --mask-port-src 7 --mask-port-dst 8",
			"master conntrack not found",
			func(c *conntrack.Conn) error { return c.CreateExpect(newExpect(flow, server4)) }, unix.ENOENT,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			_, message, err := try(t, ns, tt.args)
			require.Error(t, err)
			require.Contains(t, message, tt.message)
			require.ErrorIs(t, tt.call(dial(t, ns)), tt.err)
		})
	}
}

// TestConntrackUpdates asserts what conntrack -U changes in a flow, and that
// Update can make the same changes.
func TestConntrackUpdates(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const tcp, udp, sctp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP
	labels := func(bits ...int) []byte {
		b := make([]byte, 16)
		for _, bit := range bits {
			word := b[bit/32*4:]
			binary.NativeEndian.PutUint32(word, binary.NativeEndian.Uint32(word)|1<<(bit%32))
		}
		return b
	}
	base := with(flowBetween(udp, client4, server4), func(f *conntrack.Flow) {
		f.Mark = 0xff00ff
		f.Labels = labels(1, 100)
	})
	base6 := with(flowBetween(udp, client6, server6), func(f *conntrack.Flow) { f.Mark = 0xff00ff })
	baseTCP := with(flowBetween(tcp, client4, server4), func(f *conntrack.Flow) {
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateEstablished}
	})
	baseSCTP := with(flowBetween(sctp, client4, server4), func(f *conntrack.Flow) {
		f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: conntrack.SCTPStateCookieWait, VTagOriginal: 1, VTagReply: 2}
	})
	liberal := conntrack.TCPFlags(conntrack.TCPFlagSACKPerm|conntrack.TCPFlagBeLiberal, 0)

	tests := []struct {
		name   string
		flow   conntrack.Flow
		args   string
		update conntrack.Flow             // the same update, without tuples
		want   func(want *conntrack.Flow) // changes from flow
	}{
		{
			"mark", base, "-m 0x12345678", conntrack.Flow{Mark: 0x12345678},
			func(f *conntrack.Flow) { f.Mark = 0x12345678 },
		},
		{
			"mark of zero", base, "-m 0", conntrack.Flow{MarkMask: 0xffffffff},
			func(f *conntrack.Flow) { f.Mark = 0 },
		},
		{
			"mark with a mask", base, "-m 0x5/0xf", conntrack.Flow{Mark: 5, MarkMask: 0xf},
			func(f *conntrack.Flow) { f.Mark = 0xff00f5 },
		},
		{
			"mark past the mask, of which it flips bits", base6, "-m 0xf05/0xf", conntrack.Flow{Mark: 0xf05, MarkMask: 0xf0f},
			func(f *conntrack.Flow) { f.Mark = 0xff0ff5 },
		},
		{
			"mark of zero with a mask", base, "-m 0/0xff", conntrack.Flow{Mark: 0, MarkMask: 0xff},
			func(f *conntrack.Flow) { f.Mark = 0xff0000 },
		},
		{
			"timeout", base, "-t 5000", conntrack.Flow{Timeout: 5000},
			func(f *conntrack.Flow) { f.Timeout = 5000 },
		},
		{
			"status", base, "-u SEEN_REPLY,ASSURED", conntrack.Flow{Status: conntrack.Status{Value: conntrack.StatusSeenReply | conntrack.StatusAssured}},
			func(f *conntrack.Flow) { f.Status.Value = conntrack.StatusSeenReply | conntrack.StatusAssured },
		},
		{
			"status FIXED_TIMEOUT", base, "-u FIXED_TIMEOUT", conntrack.Flow{Status: conntrack.Status{Value: conntrack.StatusFixedTimeout}},
			func(f *conntrack.Flow) { f.Status.Value = conntrack.StatusFixedTimeout },
		},
		{
			"add a label", base, "--label-add label127", conntrack.Flow{Labels: labels(127), LabelsMask: labels(127)},
			func(f *conntrack.Flow) { f.Labels = labels(1, 100, 127) },
		},
		{
			"delete a label", base, "--label-del label1", conntrack.Flow{Labels: labels(), LabelsMask: labels(1)},
			func(f *conntrack.Flow) { f.Labels = labels(100) },
		},
		{
			"delete all labels", base, "--label-del", conntrack.Flow{Labels: labels()},
			func(f *conntrack.Flow) { f.Labels = nil },
		},
		{
			"TCP state", baseTCP, "--state LAST_ACK",
			conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{
				State: conntrack.TCPStateLastAck, OriginalFlags: liberal | liberal>>8, ReplyFlags: liberal | liberal>>8,
			}}},
			func(f *conntrack.Flow) {
				f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateLastAck, OriginalFlags: liberal, ReplyFlags: liberal}
			},
		},
		{
			"SCTP state and tags", baseSCTP, "--state ESTABLISHED --orig-vtag 7 --reply-vtag 8",
			conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{SCTP: &conntrack.ProtoInfoSCTP{State: 4, VTagOriginal: swapped(7), VTagReply: swapped(8)}}},
			func(f *conntrack.Flow) {
				f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: 4, VTagOriginal: swapped(7), VTagReply: swapped(8)}
			},
		},
		{
			"several", base, "-t 77 -u ASSURED -m 1 --label-add label3",
			conntrack.Flow{
				Timeout: 77, Mark: 1, Status: conntrack.Status{Value: conntrack.StatusAssured},
				Labels: labels(3), LabelsMask: labels(3),
			},
			func(f *conntrack.Flow) {
				f.Timeout, f.Mark, f.Status.Value = 77, 1, conntrack.StatusAssured
				f.Labels = labels(1, 3, 100)
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := tt.flow
			tt.want(&want)
			updates := map[string]func(t *testing.T, ns *nstest.NS, c *conntrack.Conn){
				"by it": func(t *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
					args := fmt.Sprintf("-U -p %s -s %s -d %s --sport %d ", protocolName(&tt.flow.TupleOrig),
						tt.flow.TupleOrig.IP.SourceAddress, tt.flow.TupleOrig.IP.DestinationAddress, tt.flow.TupleOrig.Proto.SourcePort)
					run(t, ns, args+tt.args)
				},
				"by us": func(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
					update := tt.update
					update.TupleOrig = tt.flow.TupleOrig
					require.NoError(t, c.Update(update))
				},
			}
			for name, update := range updates {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					ns := nstest.New(t)
					ns.Labels()
					c := dial(t, ns)
					create(t, c, tt.flow)
					update(t, ns, c)
					requireFlow(t, want, dumpOne(t, c))
					requireShown(t, ns, c)
				})
			}
		})
	}
}

// TestConntrackDeletes asserts that flows deleted by conntrack(8) or by this
// package are gone for the other.
func TestConntrackDeletes(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	zoned := with(newFlow(3), func(f *conntrack.Flow) { f.Zone = 3 })
	marked := with(newFlow(4), func(f *conntrack.Flow) { f.Mark = 0x14 })
	all := []conntrack.Flow{newFlow(1), newFlow(2), newFlow6(1), zoned, marked}
	ourDelete := func(flows ...conntrack.Flow) func(*testing.T, *conntrack.Conn) {
		return func(t *testing.T, c *conntrack.Conn) { require.NoError(t, c.DeleteBatch(flows)) }
	}
	tests := []struct {
		name, args string
		ours       func(t *testing.T, c *conntrack.Conn) // does the same
		gone       []conntrack.Flow
	}{
		{"by address", "-D -s 10.1.0.1", ourDelete(newFlow(1)), []conntrack.Flow{newFlow(1)}},
		{"by network", "-D -s 10.1.0.0/30", ourDelete(newFlow(1), newFlow(2), zoned), []conntrack.Flow{newFlow(1), newFlow(2), zoned}},
		{"by IPv6 address", "-D -s 2001:db8::1", ourDelete(newFlow6(1)), []conntrack.Flow{newFlow6(1)}},
		{"by zone", "-D -w 3", ourDelete(zoned), []conntrack.Flow{zoned}},
		{"by mark", "-D -m 0x4/0xf", ourDelete(marked), []conntrack.Flow{marked}},
		{"by family", "-D -f ipv6", ourDelete(newFlow6(1)), []conntrack.Flow{newFlow6(1)}},
		{"all", "-F", func(t *testing.T, c *conntrack.Conn) { require.NoError(t, c.Flush()) }, all},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			deletes := []func(){func() { run(t, ns, tt.args) }, func() { tt.ours(t, c) }}
			for _, remove := range deletes {
				create(t, c, all...)
				remove()
				requireGone(t, c, tt.gone)
				flows, err := c.Dump(nil)
				require.NoError(t, err)
				require.Len(t, flows, len(all)-len(tt.gone))
				requireShown(t, ns, c)
				require.NoError(t, c.Flush())
			}
		})
	}
}

func requireGone(t *testing.T, c *conntrack.Conn, flows []conntrack.Flow) {
	t.Helper()
	for _, f := range flows {
		_, err := c.Get(f)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

// TestConntrackZeroes asserts that counters reset by conntrack(8) or by this
// package are zero for the other, and that both return the previous values.
func TestConntrackZeroes(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	ns := nstest.New(t, nstest.Accounting())
	c := dial(t, ns)
	traffic := func() {
		ns.ICMPEcho(server4.Addr(), 7)
		ns.ICMPEcho(server6.Addr(), 7)
	}
	counted := func(zero bool) {
		t.Helper()
		flows, err := c.Dump(nil)
		require.NoError(t, err)
		require.Len(t, flows, 2)
		for _, f := range flows {
			require.True(t, f.Counted())
			require.Equal(t, zero, f.CountersOrig.Packets == 0 && f.CountersOrig.Bytes == 0)
			require.Equal(t, zero, f.CountersReply.Packets == 0 && f.CountersReply.Bytes == 0)
		}
		requireShown(t, ns, c)
	}

	traffic()
	counted(false)
	for _, family := range []string{"ipv4", "ipv6"} {
		before := xmlFlows(t, c, family)
		listed := listedFlows(t, run(t, ns, "-L -z -o xml,id -f "+family))
		withinSecond(before, listed)
		for id, f := range before {
			f.Metas[2].Use = listed[id].Metas[2].Use // a packet's reference may be gone
		}
		require.Equal(t, listed, before)
	}
	counted(true)

	traffic()
	counted(false)
	before, err := c.Dump(nil)
	require.NoError(t, err)
	zeroed, err := c.Dump(&conntrack.DumpOptions{ZeroCounters: true})
	require.NoError(t, err)
	require.Equal(t, counters(before), counters(zeroed))
	counted(true)
}

func counters(flows []conntrack.Flow) map[uint32][2]conntrack.Counter {
	all := make(map[uint32][2]conntrack.Counter)
	for _, f := range flows {
		all[f.ID] = [2]conntrack.Counter{f.CountersOrig, f.CountersReply}
	}
	return all
}
