//go:build linux

package conntrack_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// These are values of enum tcp_conntrack and enum sctp_conntrack.
const (
	tcpSynSent     = 1
	tcpEstablished = 3
	tcpTimeWait    = 7
	tcpClose       = 8

	sctpEstablished = 4
)

// These are TCP flags (linux/netfilter/nf_conntrack_tcp.h) as in ProtoInfoTCP.
const (
	tcpFlagWindowScale = 0x01 << 8
	tcpFlagSACKPerm    = 0x02 << 8
	tcpFlagLiberal     = 0x08 << 8
)

// TestCreate asserts that a created flow is found unchanged by either tuple and
// in a dump.
func TestCreate(t *testing.T) {
	t.Parallel()
	tcp := with(flowBetween(unix.IPPROTO_TCP, client4, server4), func(f *conntrack.Flow) {
		f.ProtoInfo.TCP = new(conntrack.ProtoInfoTCP)
	})
	echo := func(proto uint8, src, dst netip.Addr, request, reply uint8) conntrack.Flow {
		return conntrack.Flow{
			TupleOrig:  echoTuple(proto, src, dst, request, 77),
			TupleReply: echoTuple(proto, dst, src, reply, 77),
			Timeout:    30,
		}
	}
	noPorts := func(proto uint8, src, dst netip.AddrPort) conntrack.Flow {
		return conntrack.NewFlow(proto, 0, src.Addr(), dst.Addr(), 0, 0, 600, 0)
	}
	sctp := with(flowBetween(unix.IPPROTO_SCTP, client4, server4), func(f *conntrack.Flow) {
		f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: sctpEstablished, VTagOriginal: 0xdeadbeef, VTagReply: 0xcafe}
	})
	helper := func(proto uint8, src, dst netip.AddrPort, name string) conntrack.Flow {
		return with(flowBetween(proto, src, dst), func(f *conntrack.Flow) {
			f.Helper.Name = name
			f.Status.Value = conntrack.StatusHelper
		})
	}

	tests := []struct {
		name string
		flow conntrack.Flow
	}{
		{"TCP IPv4", tcp},
		{"TCP IPv6", with(flowBetween(unix.IPPROTO_TCP, client6, server6), func(f *conntrack.Flow) {
			f.ProtoInfo.TCP = new(conntrack.ProtoInfoTCP)
		})},
		{"UDP IPv4", flowBetween(unix.IPPROTO_UDP, client4, server4)},
		{"UDP IPv6", flowBetween(unix.IPPROTO_UDP, client6, server6)},
		{"ICMP", echo(unix.IPPROTO_ICMP, client4.Addr(), server4.Addr(), 8, 0)},
		{"ICMP timestamp", echo(unix.IPPROTO_ICMP, client4.Addr(), server4.Addr(), 13, 14)},
		{"ICMPv6", echo(unix.IPPROTO_ICMPV6, client6.Addr(), server6.Addr(), 128, 129)},
		{"SCTP IPv4", sctp},
		{"SCTP IPv6", with(flowBetween(unix.IPPROTO_SCTP, client6, server6), func(f *conntrack.Flow) {
			f.ProtoInfo = sctp.ProtoInfo
		})},
		{"GRE IPv4", flowBetween(unix.IPPROTO_GRE, client4, server4)},
		{"GRE IPv6", flowBetween(unix.IPPROTO_GRE, client6, server6)},
		{"UDP-Lite", flowBetween(unix.IPPROTO_UDPLITE, client4, server4)},
		{"UDP-Lite IPv6", flowBetween(unix.IPPROTO_UDPLITE, client6, server6)},
		{"other protocol", noPorts(unix.IPPROTO_ESP, client4, server4)},
		{"other protocol IPv6", noPorts(253, client6, server6)},
		{"IPv4-mapped IPv6", flowBetween(unix.IPPROTO_UDP, netip.MustParseAddrPort("[::ffff:10.0.0.1]:1"), server6)},

		{"long timeout", with(tcp, func(f *conntrack.Flow) { f.Timeout = 30 * 24 * 3600 })},
		{"mark", with(tcp, func(f *conntrack.Flow) { f.Mark = 0xf000baaa })},
		{"mark of all bits", with(tcp, func(f *conntrack.Flow) { f.Mark = 0xffffffff })},
		{"status", with(tcp, func(f *conntrack.Flow) {
			f.Status.Value = conntrack.StatusSeenReply | conntrack.StatusAssured | conntrack.StatusFixedTimeout
		})},
		{"zone", with(tcp, func(f *conntrack.Flow) { f.Zone = 65535 })},
		{"zone of the original direction", with(tcp, func(f *conntrack.Flow) { f.TupleOrig.Zone = 7 })},
		{"zone of the reply direction", with(tcp, func(f *conntrack.Flow) { f.TupleReply.Zone = 7 })},
		{"labels", with(tcp, func(f *conntrack.Flow) {
			f.Labels = []byte{0xf0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0x0f}
		})},
		{"translated", with(tcp, func(f *conntrack.Flow) { f.TupleReply = tuple(unix.IPPROTO_TCP, other4, client4) })},

		{"helper ftp", with(helper(unix.IPPROTO_TCP, client4, server4, "ftp"), func(f *conntrack.Flow) {
			f.ProtoInfo.TCP = new(conntrack.ProtoInfoTCP)
		})},
		{"helper tftp IPv6", helper(unix.IPPROTO_UDP, client6, server6, "tftp")},

		{"TCP state", with(tcp, func(f *conntrack.Flow) {
			f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: tcpEstablished}
		})},
		{"SCTP without state", with(sctp, func(f *conntrack.Flow) { f.ProtoInfo.SCTP = new(conntrack.ProtoInfoSCTP) })},

		{"sequence adjustment", with(tcp, func(f *conntrack.Flow) {
			f.Status.Value = conntrack.StatusSeqAdjust
			f.SeqAdjOrig = conntrack.SequenceAdjust{Position: 0xfffffffe, OffsetBefore: 2, OffsetAfter: 0xfffffffd}
			f.SeqAdjReply = conntrack.SequenceAdjust{Direction: true, Position: 4, OffsetBefore: 5, OffsetAfter: 6}
		})},
		{"sequence adjustment of one direction", with(tcp, func(f *conntrack.Flow) {
			f.Status.Value = conntrack.StatusSeqAdjust
			f.SeqAdjOrig = conntrack.SequenceAdjust{OffsetAfter: 1}
			f.SeqAdjReply.Direction = true
		})},
		{"SYN proxy", with(tcp, func(f *conntrack.Flow) {
			f.SynProxy = conntrack.SynProxy{ISN: 0xffffffff, ITS: 2, TSOff: 3}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			ns.Labels()
			c := dial(t, ns)
			create(t, c, tt.flow)
			want := tt.flow
			if want.TupleOrig.Proto.Protocol == unix.IPPROTO_UDPLITE && kernelAtLeast(t, 7, 2) { // which does not track it
				want.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: unix.IPPROTO_UDPLITE}
				want.TupleReply = want.TupleOrig.Reverse()
			}
			requireFlow(t, want, get(t, c, tt.flow))
			requireFlow(t, want, get(t, c, conntrack.Flow{TupleOrig: tt.flow.TupleOrig, Zone: tt.flow.Zone}))
			requireFlow(t, want, get(t, c, conntrack.Flow{TupleReply: tt.flow.TupleReply, Zone: tt.flow.Zone}))
			requireFlow(t, want, dumpOne(t, c))
		})
	}
}

// TestCreateHelperInfo asserts that a helper that does not use Info ignores it.
func TestCreateHelperInfo(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	f := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	f.Helper.Info = []byte("hello")
	create(t, c, f)
	require.Equal(t, conntrack.Helper{Name: "ftp"}, get(t, c, f).Helper)
	require.NoError(t, c.Update(f))
}

// TestCreateDCCP asserts that DCCP flows can be created. The result depends on
// the kernel: newer ones do not track DCCP and ignore its ports.
func TestCreateDCCP(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	f := flowBetween(unix.IPPROTO_DCCP, client4, server4)
	f.ProtoInfo.DCCP = &conntrack.ProtoInfoDCCP{State: 3, Role: 1, HandshakeSeq: 0xfeedfacecafe}
	create(t, c, f)
	got := dumpOne(t, c)
	if got.ProtoInfo.DCCP == nil {
		require.True(t, kernelAtLeast(t, 6, 17), "DCCP is not tracked")
		require.Zero(t, got.TupleOrig.Proto.DestinationPort)
		t.Skip("this kernel does not track DCCP: Linux 6.17 and newer do not")
	}
	requireFlow(t, f, got)
}

// TestCreateMaster asserts that a flow created with a master is related to it.
func TestCreateMaster(t *testing.T) {
	t.Parallel()
	for name, newFlow := range map[string]func(int) conntrack.Flow{"IPv4": newFlow, "IPv6": newFlow6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			master, related := newFlow(1), newFlow(2)
			related.TupleMaster = master.TupleOrig
			require.ErrorIs(t, c.Create(related), unix.ENOENT, "the master is not there")
			create(t, c, master, related)

			want := related
			want.Status.Value = conntrack.StatusExpected
			got := get(t, c, related)
			requireFlow(t, want, got)

			// The dumped flow can be created again but not updated.
			require.NoError(t, c.Delete(got))
			require.NoError(t, c.Create(got))
			requireFlow(t, want, get(t, c, related))
			require.ErrorIs(t, c.Update(got), conntrack.ErrUpdateMaster)
		})
	}
}

// TestUpdate asserts that an update changes the fields that are set in it, and
// nothing else.
func TestUpdate(t *testing.T) {
	t.Parallel()
	const (
		replied = conntrack.StatusSeenReply
		assured = conntrack.StatusAssured
		helper  = conntrack.StatusHelper
	)
	base := with(flowBetween(unix.IPPROTO_TCP, client4, server4), func(f *conntrack.Flow) {
		f.Status.Value = replied
		f.Mark = 0xbeef
		f.Labels = []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: tcpEstablished}
	})
	helped := with(base, func(f *conntrack.Flow) {
		f.Helper.Name = "ftp"
		f.Status.Value |= helper
	})
	scaled := with(base, func(f *conntrack.Flow) {
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{
			State: tcpEstablished, OriginalWindowScale: 7, ReplyWindowScale: 9,
			OriginalFlags: tcpFlagWindowScale | 0xff, ReplyFlags: tcpFlagWindowScale | 0xff,
		}
	})
	sctp := with(flowBetween(unix.IPPROTO_SCTP, client4, server4), func(f *conntrack.Flow) {
		f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: 1}
	})

	tests := []struct {
		name   string
		create conntrack.Flow
		update conntrack.Flow             // without tuples: those of create apply
		want   func(want *conntrack.Flow) // changes from create
	}{
		{
			"nothing", base, conntrack.Flow{},
			func(*conntrack.Flow) {},
		},
		{
			"timeout", base, conntrack.Flow{Timeout: 5000},
			func(f *conntrack.Flow) { f.Timeout = 5000 },
		},
		{
			"mark", base, conntrack.Flow{Mark: 0xcafe},
			func(f *conntrack.Flow) { f.Mark = 0xcafe },
		},
		{
			"mark, zero", with(base, func(f *conntrack.Flow) { f.Mark = 0xcafe }), conntrack.Flow{MarkMask: 0xffffffff},
			func(f *conntrack.Flow) { f.Mark = 0 },
		},
		{
			"mark, some bits of it", with(base, func(f *conntrack.Flow) { f.Mark = 0xffff0f0f }),
			conntrack.Flow{Mark: 0x12, MarkMask: 0xff},
			func(f *conntrack.Flow) { f.Mark = 0xffff0f12 },
		},
		{
			"mark, bits outside the mask", with(base, func(f *conntrack.Flow) { f.Mark = 0xffff0f0f }),
			conntrack.Flow{Mark: 0x111, MarkMask: 0x10},
			func(f *conntrack.Flow) { f.Mark = 0xffff0f1f },
		},
		{
			"status", base, conntrack.Flow{Status: conntrack.Status{Value: replied | assured}},
			func(f *conntrack.Flow) { f.Status.Value = replied | assured },
		},
		{
			"status flags that are left out",
			with(base, func(f *conntrack.Flow) { f.Status.Value = replied | conntrack.StatusFixedTimeout }),
			conntrack.Flow{Status: conntrack.Status{Value: replied}},
			func(*conntrack.Flow) {},
		},
		{
			"status flags that cannot be changed", base,
			conntrack.Flow{Status: conntrack.Status{Value: replied | conntrack.StatusSrcNAT | conntrack.StatusSeqAdjust | conntrack.StatusOffload}},
			func(*conntrack.Flow) {},
		},
		{
			"labels", base, conntrack.Flow{Labels: []byte{0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff}},
			func(f *conntrack.Flow) { f.Labels = []byte{0xff, 15: 0xff} },
		},
		{
			"labels, the first word of them", base, conntrack.Flow{Labels: []byte{0xff, 0, 0, 0}},
			func(f *conntrack.Flow) { f.Labels = []byte{0xff, 15: 0} },
		},
		{
			"labels with a mask", base,
			conntrack.Flow{
				Labels:     []byte{0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0},
				LabelsMask: []byte{0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0},
			},
			func(f *conntrack.Flow) {
				f.Labels = []byte{0xff, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0xf0}
			},
		},
		{
			"no labels", base, conntrack.Flow{Labels: make([]byte, 16)},
			func(f *conntrack.Flow) { f.Labels = nil },
		},
		{
			"the same helper", helped, conntrack.Flow{Helper: conntrack.Helper{Name: "ftp"}},
			func(*conntrack.Flow) {},
		},
		{
			"TCP state", base,
			conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{State: tcpTimeWait}}},
			func(f *conntrack.Flow) { f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: tcpTimeWait} },
		},
		{
			"TCP flags that the mask has", scaled,
			conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{
				State:         tcpEstablished,
				OriginalFlags: tcpFlagLiberal | tcpFlagSACKPerm | tcpFlagLiberal>>8,
				ReplyFlags:    tcpFlagWindowScale >> 8,
			}}},
			func(f *conntrack.Flow) {
				f.ProtoInfo.TCP.OriginalFlags = tcpFlagWindowScale | tcpFlagLiberal
				f.ProtoInfo.TCP.ReplyFlags = 0
			},
		},
		{
			"TCP window scales", scaled,
			conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{
				State: tcpEstablished, OriginalWindowScale: 0, ReplyWindowScale: 14,
			}}},
			func(f *conntrack.Flow) {
				f.ProtoInfo.TCP.OriginalWindowScale, f.ProtoInfo.TCP.ReplyWindowScale = 0, 14
			},
		},
		{
			"TCP window scales without their flags", base,
			conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{
				State: tcpEstablished, OriginalWindowScale: 3, ReplyWindowScale: 4,
			}}},
			func(*conntrack.Flow) {},
		},
		{
			"SCTP state", sctp,
			conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{SCTP: &conntrack.ProtoInfoSCTP{State: 5, VTagOriginal: 1, VTagReply: 2}}},
			func(f *conntrack.Flow) {
				f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: 5, VTagOriginal: 1, VTagReply: 2}
			},
		},
		{
			"state of another protocol", sctp,
			conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{State: tcpEstablished}}},
			func(*conntrack.Flow) {},
		},
		{
			"sequence adjustment", base,
			conntrack.Flow{SeqAdjReply: conntrack.SequenceAdjust{Position: 1, OffsetBefore: 2, OffsetAfter: 3}},
			func(f *conntrack.Flow) {
				f.Status.Value |= conntrack.StatusSeqAdjust
				f.SeqAdjReply = conntrack.SequenceAdjust{Direction: true, Position: 1, OffsetBefore: 2, OffsetAfter: 3}
			},
		},
		{
			"SYN proxy", base, conntrack.Flow{SynProxy: conntrack.SynProxy{ISN: 1}},
			func(f *conntrack.Flow) { f.SynProxy.ISN = 1 },
		},
		{
			"zone stays", with(base, func(f *conntrack.Flow) { f.Zone = 9 }), conntrack.Flow{Zone: 9, Mark: 1},
			func(f *conntrack.Flow) { f.Mark = 1 },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			ns.Labels()
			c := dial(t, ns)
			create(t, c, tt.create)
			before := dumpOne(t, c)

			want := tt.create
			// The kernel does not send the mask of the flags.
			if p := want.ProtoInfo.TCP; p != nil {
				shown := *p
				shown.OriginalFlags &= 0xff00
				shown.ReplyFlags &= 0xff00
				want.ProtoInfo.TCP = &shown
			}
			requireFlow(t, want, before)
			tt.want(&want)

			// Either tuple is enough.
			byOrig, byReply := tt.update, tt.update
			byOrig.TupleOrig, byReply.TupleReply = tt.create.TupleOrig, tt.create.TupleReply
			for _, u := range []conntrack.Flow{byOrig, byReply} {
				require.NoError(t, c.Update(u))
				got := dumpOne(t, c)
				requireFlow(t, want, got)
				require.Equal(t, before.ID, got.ID)
			}
		})
	}
}

// TestUpdateWhatWasGot asserts that a flow from Get can be changed and passed
// to Update.
func TestUpdateWhatWasGot(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	ns.Labels()
	ns.Helper("ftp", unix.IPPROTO_TCP, 8080)
	c := dial(t, ns)
	ns.TCP(client6, server6)
	f := get(t, c, conntrack.Flow{TupleOrig: tuple(unix.IPPROTO_TCP, client6, server6)})
	f.Mark = 42
	f.Labels = []byte{1, 15: 1}
	require.NoError(t, c.Update(f))
	requireFlow(t, f, dumpOne(t, c))
}

// TestRefused asserts the kernel's errors for requests that it refuses.
func TestRefused(t *testing.T) {
	t.Parallel()
	tcp := flowBetween(unix.IPPROTO_TCP, client4, server4)
	status := func(v conntrack.StatusFlag) func(*conntrack.Flow) {
		return func(f *conntrack.Flow) { f.Status.Value = v }
	}
	create := (*conntrack.Conn).Create
	update := (*conntrack.Conn).Update
	delete := (*conntrack.Conn).Delete
	get := func(c *conntrack.Conn, f conntrack.Flow) error {
		_, err := c.Get(f)
		return err
	}
	none := func(*conntrack.Flow) {}

	tests := []struct {
		name    string
		call    func(*conntrack.Conn, conntrack.Flow) error
		there   func(f *conntrack.Flow) // makes the existing flow; nil for none
		request func(f *conntrack.Flow)
		want    error
	}{
		{"create what is there", create, none, none, unix.EEXIST},
		{"create what is there in the other direction", create, none, func(f *conntrack.Flow) {
			f.TupleOrig, f.TupleReply = f.TupleReply, f.TupleOrig
		}, unix.EEXIST},
		{"create with two protocols", create, nil, func(f *conntrack.Flow) { f.TupleReply.Proto.Protocol = unix.IPPROTO_UDP }, unix.EINVAL},
		{"create with bad ICMP type", create, nil, func(f *conntrack.Flow) {
			f.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: unix.IPPROTO_ICMP, ICMPType: 3}
			f.TupleReply.Proto = f.TupleOrig.Proto
		}, unix.EINVAL},
		{"create with status dying", create, nil, status(conntrack.StatusDying), unix.EBUSY},
		{"create with unknown helper", create, nil, func(f *conntrack.Flow) { f.Helper.Name = "nonesuch" }, unix.EOPNOTSUPP},
		{"create with long helper", create, nil, func(f *conntrack.Flow) { f.Helper.Name = strings.Repeat("x", 16) }, unix.EINVAL},
		{"create with helper of another protocol", create, nil, func(f *conntrack.Flow) { f.Helper.Name = "tftp" }, unix.EOPNOTSUPP},
		{"create with zone twice", create, nil, func(f *conntrack.Flow) { f.Zone, f.TupleOrig.Zone = 1, 2 }, conntrack.ErrTwoZones},
		{"create with a zone in each direction", create, nil, func(f *conntrack.Flow) { f.TupleOrig.Zone, f.TupleReply.Zone = 1, 2 }, conntrack.ErrTwoZones},
		{"create with too many labels", create, nil, func(f *conntrack.Flow) { f.Labels = make([]byte, 20) }, unix.ERANGE},

		{"update what is not there", update, nil, none, unix.ENOENT},
		{"update in another zone", update, func(f *conntrack.Flow) { f.Zone = 1 }, none, unix.ENOENT},
		{"update unsets seen reply", update, status(conntrack.StatusSeenReply), status(conntrack.StatusAssured), unix.EBUSY},
		{"update unsets assured", update, status(conntrack.StatusAssured), status(conntrack.StatusSeenReply), unix.EBUSY},
		{"update sets dying", update, none, status(conntrack.StatusDying), unix.EBUSY},
		{"update sets expected", update, none, status(conntrack.StatusExpected), unix.EBUSY},
		{"update of a fixed timeout", update, status(conntrack.StatusFixedTimeout), none, unix.EPERM},
		{"update adds helper", update, none, func(f *conntrack.Flow) { f.Helper.Name = "ftp" }, unix.EOPNOTSUPP},
		{
			"update changes helper", update,
			func(f *conntrack.Flow) { f.Helper.Name = "ftp" },
			func(f *conntrack.Flow) { f.Helper.Name = "irc" }, unix.EBUSY,
		},
		{"update with labels where there is no room", update, none, func(f *conntrack.Flow) { f.Labels = []byte{1, 0, 0, 0} }, unix.ENOSPC},
		{"update with part of a word of labels", update, none, func(f *conntrack.Flow) { f.Labels = []byte{1, 0} }, conntrack.ErrBadLabels},
		{"update with short labels mask", update, none, func(f *conntrack.Flow) {
			f.Labels, f.LabelsMask = make([]byte, 8), make([]byte, 4)
		}, conntrack.ErrBadLabels},

		{"get what is not there", get, nil, none, unix.ENOENT},
		{"get from another zone", get, none, func(f *conntrack.Flow) { f.Zone = 1 }, unix.ENOENT},
		{"delete what is not there", delete, nil, none, unix.ENOENT},
		{"delete from another zone", delete, none, func(f *conntrack.Flow) { f.Zone = 1 }, unix.ENOENT},
		{"delete with another ID", delete, none, func(f *conntrack.Flow) { f.ID = 1 }, unix.ENOENT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if errors.Is(tt.want, unix.EPERM) {
				needKernel(t, 6, 0, "before, an update changes a fixed timeout")
			}
			c := dial(t, nstest.New(t))
			if tt.there != nil {
				require.NoError(t, c.Create(with(tcp, tt.there)))
			}
			before, err := c.Dump(nil)
			require.NoError(t, err)

			err = tt.call(c, with(tcp, tt.request))
			require.ErrorIs(t, err, tt.want)
			require.Equal(t, tt.want == unix.ENOENT, errors.Is(err, fs.ErrNotExist))
			require.Equal(t, tt.want == unix.EEXIST, errors.Is(err, fs.ErrExist))
			require.Equal(t, tt.want == unix.EPERM, errors.Is(err, fs.ErrPermission))
			require.ErrorContains(t, err, "127.0.0.2:")

			after, err := c.Dump(nil)
			require.NoError(t, err)
			requireSameFlows(t, before, after)
		})
	}
}

// TestUpdateInPart asserts that the kernel carries out an update up to the part
// that fails. Labels come last.
func TestUpdateInPart(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	create(t, c, newFlow(1))
	f := conntrack.Flow{TupleOrig: newFlow(1).TupleOrig, Mark: 5, Labels: []byte{1, 0, 0, 0}}
	require.ErrorIs(t, c.Update(f), unix.ENOSPC)
	require.Equal(t, uint32(5), dumpOne(t, c).Mark)
}

// TestWithoutRoomForLabels asserts that it is an error if the kernel silently
// creates a flow without its labels.
func TestWithoutRoomForLabels(t *testing.T) {
	t.Parallel()
	labelled := func(n int) conntrack.Flow {
		return with(newFlow(n), func(f *conntrack.Flow) { f.Labels = []byte{15: 1} })
	}
	for name, create := range map[string]func(*conntrack.Conn) error{
		"Create":         func(c *conntrack.Conn) error { return c.Create(labelled(1)) },
		"CreateOrUpdate": func(c *conntrack.Conn) error { return c.CreateOrUpdate(labelled(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			err := create(c)
			require.ErrorIs(t, err, unix.ENOSPC)
			require.Equal(t, 1, strings.Count(err.Error(), "ct label set"), "%v", err)
			require.Empty(t, dumpOne(t, c).Labels)
		})
	}
	t.Run("CreateBatch", func(t *testing.T) {
		t.Parallel()
		c := dial(t, nstest.New(t))
		err := c.CreateBatch([]conntrack.Flow{newFlow(0), labelled(1), newFlow(2), labelled(1), labelled(3)})
		var batch *conntrack.BatchError
		require.ErrorAs(t, err, &batch)
		errnos := make(map[int]unix.Errno)
		for _, e := range batch.Failed {
			var errno unix.Errno
			require.ErrorAs(t, e.Err, &errno)
			errnos[e.Index] = errno
		}
		require.Equal(t, map[int]unix.Errno{1: unix.ENOSPC, 3: unix.EEXIST, 4: unix.ENOSPC}, errnos)
	})
}

// TestLabelsClearedMeanwhile asserts that labels that another program clears
// are not mistaken for labels without room, nor flows that it removes for
// failures.
func TestLabelsClearedMeanwhile(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.Labels()
	c, other := dial(t, ns), dial(t, ns)
	f := with(newFlow(1), func(f *conntrack.Flow) { f.Labels = []byte{15: 1} })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			_ = other.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Labels: make([]byte, 16)})
			_ = other.Delete(f)
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
			if err := c.Create(f); !errors.Is(err, unix.EEXIST) {
				require.NoError(t, err)
			}
		}
	}
}

// TestMaskedLabelsAreNotMissed asserts that labels outside the mask, and labels
// that are all zero, need no room.
func TestMaskedLabelsAreNotMissed(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	create(t, c,
		with(newFlow(1), func(f *conntrack.Flow) { f.Labels, f.LabelsMask = []byte{1, 0, 0, 0}, []byte{2, 0, 0, 0} }),
		with(newFlow(2), func(f *conntrack.Flow) { f.Labels = make([]byte, 16) }))
}

// TestKeys asserts which keys find a flow: one tuple or both, with its zone and
// its ID.
func TestKeys(t *testing.T) {
	t.Parallel()
	type flow = conntrack.Flow
	base := flowBetween(unix.IPPROTO_UDP, client4, server4)
	orig, reply := base.TupleOrig, base.TupleReply
	zoned := func(tuple conntrack.Tuple, zone uint16) conntrack.Tuple {
		tuple.Zone = zone
		return tuple
	}
	both := with(base, func(f *flow) { f.Zone = 5 })
	origZone := with(base, func(f *flow) { f.TupleOrig.Zone = 5 })
	replyZone := with(base, func(f *flow) { f.TupleReply.Zone = 5 })

	tests := []struct {
		name  string
		flow  flow
		key   flow
		found bool
	}{
		{"original", base, flow{TupleOrig: orig}, true},
		{"reply", base, flow{TupleReply: reply}, true},
		{"both", base, flow{TupleOrig: orig, TupleReply: reply}, true},
		{"original as reply", base, flow{TupleReply: orig}, true},
		{"the original counts", base, flow{TupleOrig: reply, TupleReply: newFlow(1).TupleOrig}, true},
		{"other fields do not count", base, flow{TupleOrig: orig, Mark: 99, Timeout: 1, Helper: conntrack.Helper{Name: "x"}}, true},
		{"another port", base, flow{TupleOrig: tuple(unix.IPPROTO_UDP, client4, other4)}, false},
		{"another protocol", base, flow{TupleOrig: tuple(unix.IPPROTO_TCP, client4, server4)}, false},
		{"another zone", base, flow{TupleOrig: orig, Zone: 5}, false},

		{"zone, original", both, flow{TupleOrig: orig, Zone: 5}, true},
		{"zone, reply", both, flow{TupleReply: reply, Zone: 5}, true},
		{"zone, as the tuple's", both, flow{TupleOrig: zoned(orig, 5)}, true},
		{"zone, none given", both, flow{TupleOrig: orig}, false},
		{"zone, another", both, flow{TupleOrig: orig, Zone: 6}, false},

		{"original zone, original", origZone, flow{TupleOrig: zoned(orig, 5)}, true},
		{"original zone, as the flow's", origZone, flow{TupleOrig: orig, Zone: 5}, true},
		{"original zone, none given", origZone, flow{TupleOrig: orig}, false},
		{"original zone, reply", origZone, flow{TupleReply: reply}, true},
		{"original zone, both", origZone, flow{TupleOrig: zoned(orig, 5), TupleReply: reply}, true},
		{"reply zone, original", replyZone, flow{TupleOrig: orig}, true},
		{"reply zone, reply", replyZone, flow{TupleReply: zoned(reply, 5)}, true},
		{"reply zone, none given", replyZone, flow{TupleReply: reply}, false},
		{"reply zone, both", replyZone, flow{TupleOrig: orig, TupleReply: zoned(reply, 5)}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t, nstest.NoTracking()))
			create(t, c, tt.flow)
			there := dumpOne(t, c)

			got, err := c.Get(tt.key)
			if !tt.found {
				require.ErrorIs(t, err, unix.ENOENT)
				require.ErrorIs(t, c.Delete(tt.key), unix.ENOENT)
				dumpOne(t, c)
				return
			}
			require.NoError(t, err)
			require.Equal(t, there.ID, got.ID)

			other := tt.key
			other.ID = got.ID + 1
			require.ErrorIs(t, c.Delete(other), unix.ENOENT)
			require.NoError(t, c.Delete(tt.key))
			require.ErrorIs(t, c.Delete(tt.key), unix.ENOENT)
		})
	}
}

// TestDeleteByID asserts that the ID protects a later flow with the same
// tuples, if the kernel has put it elsewhere in memory, and what happens if
// not.
func TestDeleteByID(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	// The kernel computes the ID from the address of the flow in memory, among
	// other values.
	same, other := false, false
	for i := 2; i < 1000 && !(same && other); i++ {
		create(t, c, newFlow(1))
		first := get(t, c, newFlow(1))
		require.NoError(t, c.Delete(first))
		if i%2 == 0 {
			create(t, c, newFlow(i)) // usually takes the same memory
		}
		create(t, c, newFlow(1))
		second := get(t, c, newFlow(1))
		require.Equal(t, second.ID, get(t, c, first).ID)
		if second.ID == first.ID {
			same = true
			require.NoError(t, c.Delete(first))
			require.ErrorIs(t, c.Delete(second), unix.ENOENT)
			continue
		}
		other = true
		require.ErrorIs(t, c.Delete(first), unix.ENOENT)
		require.NoError(t, c.Delete(second))
	}
	require.True(t, other)
	require.True(t, same)
}

// TestNoHelper asserts that the helper of a flow can be removed. Kernels from
// about 7.2 on refuse that.
func TestNoHelper(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	create(t, c, newMaster("ftp", unix.IPPROTO_TCP, client4, server4))
	f := dumpOne(t, c)
	f.Helper.Name = conntrack.NoHelper
	err := c.Update(f)
	if err != nil {
		require.True(t, kernelAtLeast(t, 6, 12), "a kernel from before mid-2026: %v", err)
		require.ErrorContains(t, err, "kernels from about 7.2 on")
		return
	}
	require.False(t, kernelAtLeast(t, 7, 2))
	require.Empty(t, dumpOne(t, c).Helper.Name)
}

// TestTraffic asserts how real packets appear in the table, and that
// conntrack(8) shows the same.
func TestTraffic(t *testing.T) {
	t.Parallel()
	const (
		replied    = conntrack.StatusConfirmed | conntrack.StatusSeenReply
		assured    = replied | conntrack.StatusAssured
		untouched  = conntrack.StatusSrcNATDone | conntrack.StatusDstNATDone
		ipv4, ipv6 = 20, 40 // sizes of headers
		udp, sctp  = 8, 12
	)
	both := func(proto uint8, src, dst netip.AddrPort) [2]conntrack.Tuple {
		return [2]conntrack.Tuple{tuple(proto, src, dst), tuple(proto, dst, src)}
	}
	counters := func(packets, bytes, replyPackets, replyBytes uint64) [2]conntrack.Counter {
		return [2]conntrack.Counter{
			{Packets: packets, Bytes: bytes},
			{Direction: true, Packets: replyPackets, Bytes: replyBytes},
		}
	}

	tests := []struct {
		name     string
		send     func(n *nstest.NS)
		tuples   [2]conntrack.Tuple
		status   conntrack.StatusFlag
		counters [2]conntrack.Counter
	}{
		{
			"UDP", func(n *nstest.NS) { n.UDP(client4, server4, true) },
			both(unix.IPPROTO_UDP, client4, server4), replied,
			counters(1, ipv4+udp+4, 1, ipv4+udp+4),
		},
		{
			"UDP IPv6", func(n *nstest.NS) { n.UDP(client6, server6, true) },
			both(unix.IPPROTO_UDP, client6, server6), replied,
			counters(1, ipv6+udp+4, 1, ipv6+udp+4),
		},
		{
			"UDP without reply", func(n *nstest.NS) { n.UDP(client4, server4, false) },
			both(unix.IPPROTO_UDP, client4, server4), conntrack.StatusConfirmed,
			counters(1, ipv4+udp+4, 0, 0),
		},
		{
			"ICMP", func(n *nstest.NS) { n.ICMPEcho(server4.Addr(), 42) },
			[2]conntrack.Tuple{
				echoTuple(unix.IPPROTO_ICMP, server4.Addr(), server4.Addr(), 8, 42),
				echoTuple(unix.IPPROTO_ICMP, server4.Addr(), server4.Addr(), 0, 42),
			},
			replied, counters(1, ipv4+8, 1, ipv4+8),
		},
		{
			"ICMPv6", func(n *nstest.NS) { n.ICMPEcho(server6.Addr(), 42) },
			[2]conntrack.Tuple{
				echoTuple(unix.IPPROTO_ICMPV6, server6.Addr(), server6.Addr(), 128, 42),
				echoTuple(unix.IPPROTO_ICMPV6, server6.Addr(), server6.Addr(), 129, 42),
			},
			replied, counters(1, ipv6+8, 1, ipv6+8),
		},
		{
			// The chunks of INIT and INIT ACK have 20 bytes, COOKIE ECHO has 12
			// and COOKIE ACK 4.
			"SCTP", func(n *nstest.NS) { n.SCTP(client4, server4) },
			both(unix.IPPROTO_SCTP, client4, server4), assured,
			counters(2, 2*(ipv4+sctp)+20+12, 2, 2*(ipv4+sctp)+20+4),
		},
		{
			"GRE", func(n *nstest.NS) { n.GRE(client4.Addr(), server4.Addr(), 0xbeef) },
			both(unix.IPPROTO_GRE, netip.AddrPortFrom(client4.Addr(), 0), netip.AddrPortFrom(server4.Addr(), 0xbeef)),
			conntrack.StatusConfirmed, counters(1, ipv4+8, 0, 0),
		},
		{
			"other protocol", func(n *nstest.NS) { n.Raw(253, client6.Addr(), server6.Addr(), []byte("hello")) },
			both(253, netip.AddrPortFrom(client6.Addr(), 0), netip.AddrPortFrom(server6.Addr(), 0)),
			conntrack.StatusConfirmed, counters(1, ipv6+5, 0, 0),
		},
		{
			"DNAT", func(n *nstest.NS) {
				n.DNAT(unix.IPPROTO_UDP, server4, other4)
				n.UDPThrough(client4, server4, other4, true)
			},
			[2]conntrack.Tuple{tuple(unix.IPPROTO_UDP, client4, server4), tuple(unix.IPPROTO_UDP, other4, client4)},
			replied | conntrack.StatusDstNAT | untouched, counters(1, ipv4+udp+4, 1, ipv4+udp+4),
		},
		{
			"SNAT", func(n *nstest.NS) {
				n.SNAT(unix.IPPROTO_UDP, server4, other4)
				n.UDP(client4, server4, true)
			},
			[2]conntrack.Tuple{tuple(unix.IPPROTO_UDP, client4, server4), tuple(unix.IPPROTO_UDP, server4, other4)},
			replied | conntrack.StatusSrcNAT | untouched, counters(1, ipv4+udp+4, 1, ipv4+udp+4),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
			c := dial(t, ns)
			before := time.Now()
			tt.send(ns)
			after := time.Now()

			f := dumpOne(t, c)
			require.Equal(t, tt.tuples, [2]conntrack.Tuple{f.TupleOrig, f.TupleReply})
			// With NAT rules, flows that they do not translate have the NAT
			// done flags, too.
			require.Equal(t, conntrack.Status{Value: tt.status}, conntrack.Status{Value: f.Status.Value &^ (untouched &^ tt.status)})
			require.Equal(t, tt.counters, [2]conntrack.Counter{f.CountersOrig, f.CountersReply})
			require.WithinRange(t, f.Timestamp.Start, before, after)
			require.Zero(t, f.Timestamp.Stop)
			require.NotZero(t, f.Timeout)
			requireAsCommand(t, ns, c)
		})
	}
}

func TestTrafficTCP(t *testing.T) {
	t.Parallel()
	const (
		replied = conntrack.StatusConfirmed | conntrack.StatusSeenReply
		assured = replied | conntrack.StatusAssured
	)
	tests := []struct {
		name           string
		client, server netip.AddrPort
		send           func(t *testing.T, n *nstest.NS, client, server netip.AddrPort)
		state          uint8
		status         conntrack.StatusFlag
		timeout        uint32
		payload        [2]uint64
	}{
		{
			"SYN sent", client4, server4, func(t *testing.T, n *nstest.NS, client, server netip.AddrPort) {
				n.DropIncoming()
				n.SYN(client, server)
			}, tcpSynSent, conntrack.StatusConfirmed, 120, [2]uint64{},
		},
		{
			"established", client4, server4, func(_ *testing.T, n *nstest.NS, client, server netip.AddrPort) {
				n.TCP(client, server)
			}, tcpEstablished, assured, 432000, [2]uint64{},
		},
		{
			"established IPv6, with data", client6, server6, func(_ *testing.T, n *nstest.NS, client, server netip.AddrPort) {
				p := n.TCP(client, server)
				p.Send(make([]byte, 100000))
				p.Reply(make([]byte, 5000))
			}, tcpEstablished, assured, 432000, [2]uint64{100000, 5000},
		},
		{
			"closed", client4, server4, func(_ *testing.T, n *nstest.NS, client, server netip.AddrPort) {
				n.TCP(client, server).Close()
			}, tcpTimeWait, assured, 120, [2]uint64{},
		},
		{
			"aborted", client6, server6, func(_ *testing.T, n *nstest.NS, client, server netip.AddrPort) {
				n.TCP(client, server).Abort()
			}, tcpClose, assured, 10, [2]uint64{},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t, nstest.Accounting())
			c := dial(t, ns)
			tt.send(t, ns, tt.client, tt.server)

			f := dumpOne(t, c)
			require.Equal(t, tuple(unix.IPPROTO_TCP, tt.client, tt.server), f.TupleOrig)
			require.Equal(t, tuple(unix.IPPROTO_TCP, tt.server, tt.client), f.TupleReply)
			require.NotNil(t, f.ProtoInfo.TCP)
			require.Equal(t, tt.state, f.ProtoInfo.TCP.State)
			require.Equal(t, conntrack.Status{Value: tt.status}, f.Status)
			require.InDelta(t, tt.timeout, f.Timeout, patience.Seconds())
			requireAsCommand(t, ns, c)

			// Headers have 40 bytes (IPv4) to 80 bytes (IPv6 with options).
			for i, counter := range []conntrack.Counter{f.CountersOrig, f.CountersReply} {
				require.Equal(t, i == 1, counter.Direction)
				require.GreaterOrEqual(t, counter.Bytes, tt.payload[i]+40*counter.Packets)
				// Retransmitted data is counted again.
				require.LessOrEqual(t, counter.Bytes, 4*tt.payload[i]+80*counter.Packets)
			}
			require.NotZero(t, f.CountersOrig.Packets)
			require.Equal(t, f.Status.SeenReply(), f.CountersReply.Packets > 0)

			if f.Status.Assured() && f.ProtoInfo.TCP.State != tcpClose {
				require.NotZero(t, f.ProtoInfo.TCP.OriginalFlags&tcpFlagWindowScale)
				require.NotZero(t, f.ProtoInfo.TCP.ReplyFlags&tcpFlagWindowScale)
				require.NotZero(t, f.ProtoInfo.TCP.OriginalWindowScale)
				require.NotZero(t, f.ProtoInfo.TCP.ReplyWindowScale)
			}
		})
	}
}

// requireAsCommand asserts that conntrack(8) lists the only flow with the same
// values as a dump.
func requireAsCommand(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
	t.Helper()
	f := dumpOne(t, c)
	family, number := "ipv4", 2
	if f.TupleOrig.IP.IsIPv6() {
		family, number = "ipv6", 10
	}
	var line string
	for unchanged := false; !unchanged; {
		line = strings.TrimSpace(ns.Conntrack("-L", "-f", family, "-o", "extended,id"))
		// A packet may have arrived in between, such as a delayed
		// acknowledgement.
		before := f
		f = dumpOne(t, c)
		before.Timeout = f.Timeout
		unchanged = assert.ObjectsAreEqual(before, f)
	}
	words := strings.Fields(line)
	require.Greater(t, len(words), 5, line)

	require.Equal(t, fmt.Sprintf("%s %d", family, number), strings.Join(words[:2], " "))
	require.Equal(t, fmt.Sprint(f.TupleOrig.Proto.Protocol), words[3])
	var timeout uint32
	_, err := fmt.Sscan(words[4], &timeout)
	require.NoError(t, err)
	require.InDelta(t, f.Timeout, timeout, patience.Seconds())

	var want []string
	if state := commandState(f.ProtoInfo); state != "" {
		want = append(want, state)
	}
	want = append(want, commandTuple(f.TupleOrig, f.CountersOrig)...)
	if !f.Status.SeenReply() {
		want = append(want, "[UNREPLIED]")
	}
	want = append(want, commandTuple(f.TupleReply, f.CountersReply)...)
	if f.Status.Assured() {
		want = append(want, "[ASSURED]")
	}
	want = append(want, fmt.Sprintf("mark=%d", f.Mark), fmt.Sprintf("use=%d", f.Use), fmt.Sprintf("id=%d", f.ID))
	got := slices.DeleteFunc(words[5:], func(word string) bool { return strings.HasPrefix(word, "delta-time=") })
	require.Equal(t, want, got)
}

func commandState(p conntrack.ProtoInfo) string {
	tcp := []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"}
	sctp := []string{"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED"}
	switch {
	case p.TCP != nil:
		return tcp[p.TCP.State]
	case p.SCTP != nil:
		return sctp[p.SCTP.State]
	}
	return ""
}

func commandTuple(t conntrack.Tuple, c conntrack.Counter) []string {
	words := []string{
		fmt.Sprintf("src=%s", t.IP.SourceAddress),
		fmt.Sprintf("dst=%s", t.IP.DestinationAddress),
	}
	switch p := t.Proto; p.Protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		words = append(words, fmt.Sprintf("type=%d", p.ICMPType), fmt.Sprintf("code=%d", p.ICMPCode), fmt.Sprintf("id=%d", p.ICMPID))
	case unix.IPPROTO_GRE:
		words = append(words, fmt.Sprintf("srckey=%#x", p.SourcePort), fmt.Sprintf("dstkey=%#x", p.DestinationPort))
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		words = append(words, fmt.Sprintf("sport=%d", p.SourcePort), fmt.Sprintf("dport=%d", p.DestinationPort))
	}
	return append(words, fmt.Sprintf("packets=%d", c.Packets), fmt.Sprintf("bytes=%d", c.Bytes))
}

// TestTrafficExtras asserts what rules add to a flow.
func TestTrafficExtras(t *testing.T) {
	t.Parallel()
	label := [16]byte{1, 2, 3, 15: 0xff}
	ns := nstest.New(t)
	c := dial(t, ns)
	ns.Mark(unix.IPPROTO_TCP, 8080, 0xfeedbeef)
	ns.Zone(unix.IPPROTO_TCP, 8080, 99)
	ns.Helper("ftp", unix.IPPROTO_TCP, 8080)
	ns.Label(unix.IPPROTO_TCP, 8080, label)
	ns.TCP(client4, server4)

	f := get(t, c, conntrack.Flow{TupleOrig: tuple(unix.IPPROTO_TCP, client4, server4), Zone: 99})
	require.Equal(t, uint32(0xfeedbeef), f.Mark)
	require.Equal(t, uint16(99), f.Zone)
	require.Equal(t, conntrack.Helper{Name: "ftp"}, f.Helper)
	require.True(t, f.Status.Helper())
	require.Equal(t, label[:], f.Labels)
	require.Empty(t, f.LabelsMask)
	require.Zero(t, f.CountersOrig)
	require.Zero(t, f.CountersReply)
	require.Zero(t, f.Timestamp)
}

// TestDumpZeroCounters asserts that a dump returns the counters and then resets
// them.
func TestDumpZeroCounters(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting())
	c := dial(t, ns)
	ns.UDP(client4, server4, false)
	zeroing := &conntrack.DumpOptions{ZeroCounters: true}

	for _, want := range []uint64{1, 0} {
		flows, err := c.Dump(zeroing)
		require.NoError(t, err)
		require.Len(t, flows, 1)
		require.Equal(t, want, flows[0].CountersOrig.Packets)
	}
	ns.UDP(client4, server4, false)
	require.Equal(t, uint64(1), dumpOne(t, c).CountersOrig.Packets)
	require.Equal(t, uint64(1), dumpOne(t, c).CountersOrig.Packets)
}

// TestZeroCountersOfSuccessor asserts that the counters of a flow that replaced
// a dumped one are not taken for those of the old flow, if the two can be told
// apart.
func TestZeroCountersOfSuccessor(t *testing.T) {
	t.Parallel()
	const n = 80 // few enough for one datagram
	for name, options := range map[string][]nstest.Option{"by ID": nil, "by start": {nstest.Timestamps()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t, options...))
			flows := manyFlows(n)
			require.NoError(t, c.CreateBatch(flows))
			ids := make(map[conntrack.Tuple]uint32)
			for f, err := range c.Flows(t.Context(), conntrack.Filter{}, nil) {
				require.NoError(t, err)
				ids[f.TupleOrig] = f.ID
			}
			// The package compares prefixes itself, so it resets flows one by
			// one.
			everything := conntrack.Filter{OrigSource: netip.MustParsePrefix("0.0.0.0/0")}
			seen := 0
			for f, err := range c.Flows(t.Context(), everything, &conntrack.DumpOptions{ZeroCounters: true}) {
				require.NoError(t, err)
				require.Equal(t, ids[f.TupleOrig], f.ID)
				if seen++; seen == 1 {
					require.NoError(t, c.Flush())
					rand.Shuffle(n, func(i, j int) { flows[i], flows[j] = flows[j], flows[i] }) // to put them elsewhere in memory
					require.NoError(t, c.CreateBatch(flows))
				}
			}
			if options == nil {
				require.Less(t, seen, n)
			} else {
				require.Equal(t, 1, seen)
			}
		})
	}
}

// TestDumpMany asserts that a dump of many datagrams is complete.
func TestDumpMany(t *testing.T) {
	t.Parallel()
	const n = 3000
	c := dial(t, nstest.New(t, nstest.NoTracking()))
	want := make(map[conntrack.Tuple]uint32)
	for i := range n {
		for _, f := range []conntrack.Flow{newFlow(i), newFlow6(i)} {
			f.Mark = uint32(i) << 8
			want[f.TupleOrig] = f.Mark
			create(t, c, f)
		}
	}

	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, 2*n)
	got := make(map[conntrack.Tuple]uint32)
	for _, f := range flows {
		got[f.TupleOrig] = f.Mark
	}
	require.True(t, maps.Equal(want, got))

	some, err := c.DumpFilter(conntrack.Filter{Mark: 7 << 8, Mask: 0xff00}, nil)
	require.NoError(t, err)
	require.Len(t, some, 2*((n+0xff-7)/0x100))
}

// TestDumpOwned asserts that each flow, including what it points to, belongs to
// the caller.
func TestDumpOwned(t *testing.T) {
	t.Parallel()
	const n = 200
	ns := nstest.New(t)
	ns.Labels()
	c := dial(t, ns)
	for i := range n {
		f := flowBetween(unix.IPPROTO_TCP, netip.AddrPortFrom(client4.Addr(), uint16(i)), server4)
		f.Labels = []byte{byte(i), 15: 1}
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: uint8(i%tcpClose + 1)}
		create(t, c, f)
	}
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, n)
	_, err = c.Dump(nil)
	require.NoError(t, err)
	for _, f := range flows {
		i := f.TupleOrig.Proto.SourcePort
		require.Equal(t, []byte{byte(i), 15: 1}, f.Labels)
		require.Equal(t, conntrack.ProtoInfoTCP{State: uint8(i%tcpClose + 1)}, *f.ProtoInfo.TCP)
		// Appending must not change another flow.
		_ = append(f.Labels, 0xff, 0xff)
		clear(f.Labels)
		*f.ProtoInfo.TCP = conntrack.ProtoInfoTCP{}
	}
}

// requireSameFlows asserts that flows are unchanged, except by the passing of
// time.
func requireSameFlows(t testing.TB, want, got []conntrack.Flow) {
	t.Helper()
	for _, flows := range [][]conntrack.Flow{want, got} {
		for i := range flows {
			flows[i].Timeout = 0
		}
	}
	require.Equal(t, want, got)
}

func TestLabelBits(t *testing.T) {
	t.Parallel()
	var f conntrack.Flow
	for _, bit := range []int{-1, 0, 127, 128, 1 << 30} {
		require.False(t, f.HasLabel(bit))
	}
	f.SetLabel(0)
	before := f
	f.SetLabel(127)
	f.ClearLabel(0)
	f.ClearLabel(64)
	require.True(t, before.HasLabel(0), "a copy is a copy")
	require.False(t, before.HasLabel(127))
	for bit := range 128 {
		require.Equal(t, bit == 127, f.HasLabel(bit), bit)
		mask := conntrack.Flow{Labels: f.LabelsMask}
		require.Equal(t, bit == 0 || bit == 64 || bit == 127, mask.HasLabel(bit), bit)
	}
	require.Panics(t, func() { f.SetLabel(128) })
	require.Panics(t, func() { f.ClearLabel(-1) })
}

// TestUpdateLabels asserts that an Update only changes the labels in its mask.
func TestUpdateLabels(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.NoTracking())
	ns.Labels()
	c := dial(t, ns)
	f := newFlow(1)
	f.SetLabel(3)
	f.SetLabel(64)
	create(t, c, f)

	dumped := dumpOne(t, c)
	dumped.SetLabel(5)
	dumped.ClearLabel(64)

	// In between, another program sets a label.
	other := conntrack.Flow{TupleOrig: f.TupleOrig}
	other.SetLabel(100)
	require.NoError(t, c.Update(other))

	require.NoError(t, c.Update(dumped))
	got := dumpOne(t, c)
	for bit := range 128 {
		require.Equal(t, bit == 3 || bit == 5 || bit == 100, got.HasLabel(bit), bit)
	}
}
