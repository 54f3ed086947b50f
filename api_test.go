package conntrack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/netfilter"
)

// This file names every exported declaration of v0.5.0 with its exact type, and
// the texts that programs may search logs for. If it does not compile or pass,
// programs in use break: fix the package, not the test.

// These are functions and methods. The method set of a value only has the
// methods that can be called on values.
var (
	_ func(config *netlink.Config) (*conntrack.Conn, error) = conntrack.Dial
	_ func(proto uint8, status conntrack.StatusFlag, srcAddr, destAddr netip.Addr,
		srcPort, destPort uint16, timeout, mark uint32) conntrack.Flow = conntrack.NewFlow

	_ interface {
		Close() error
		SetOption(option netlink.ConnOption, enable bool) error
		SetReadBuffer(bytes int) error
		SetWriteBuffer(bytes int) error
		Listen(evChan chan<- conntrack.Event, numWorkers uint8, groups []netfilter.NetlinkGroup) (chan error, error)
		Dump(opts *conntrack.DumpOptions) ([]conntrack.Flow, error)
		DumpFilter(f conntrack.Filter, opts *conntrack.DumpOptions) ([]conntrack.Flow, error)
		DumpExpect() ([]conntrack.Expect, error)
		Flush() error
		FlushFilter(f conntrack.Filter) error
		Create(f conntrack.Flow) error
		CreateExpect(ex conntrack.Expect) error
		Get(f conntrack.Flow) (conntrack.Flow, error)
		Update(f conntrack.Flow) error
		Delete(f conntrack.Flow) error
		Stats() ([]conntrack.Stats, error)
		StatsExpect() ([]conntrack.StatsExpect, error)
		StatsGlobal() (conntrack.StatsGlobal, error)
	} = (*conntrack.Conn)(nil)

	_ interface {
		Expected() bool
		SeenReply() bool
		Assured() bool
		Confirmed() bool
		SrcNAT() bool
		DstNAT() bool
		SeqAdjust() bool
		SrcNATDone() bool
		DstNATDone() bool
		Dying() bool
		FixedTimeout() bool
		Template() bool
		Helper() bool
		Offload() bool
		String() string
	} = conntrack.Status{}

	_ fmt.Stringer = conntrack.Event{}
	_ fmt.Stringer = conntrack.Counter{}
	_ fmt.Stringer = conntrack.SequenceAdjust{}
	_ fmt.Stringer = conntrack.Tuple{}
	_ fmt.Stringer = conntrack.Stats{}

	_ interface{ IsIPv6() bool } = conntrack.IPTuple{}
	_ interface {
		Unmarshal(nlmsg netlink.Message) error
	} = (*conntrack.Event)(nil)
)

// Constants must be usable where the language requires constants.
const (
	_ = conntrack.StatusNATMask
	_ = conntrack.StatusNATDoneMask
	_ = conntrack.EventUnknown
	_ = netfilter.GroupNone
	_ = netfilter.ProtoUnspec
)

func TestAPIFields(t *testing.T) {
	fields[conntrack.Status, struct {
		Value conntrack.StatusFlag
	}](t)
	fields[conntrack.Helper, struct {
		Name string
		Info []byte
	}](t)
	fields[conntrack.ProtoInfo, struct {
		TCP  *conntrack.ProtoInfoTCP
		DCCP *conntrack.ProtoInfoDCCP
		SCTP *conntrack.ProtoInfoSCTP
	}](t)
	fields[conntrack.ProtoInfoTCP, struct {
		State               uint8
		OriginalWindowScale uint8
		ReplyWindowScale    uint8
		OriginalFlags       uint16
		ReplyFlags          uint16
	}](t)
	fields[conntrack.ProtoInfoDCCP, struct {
		State, Role  uint8
		HandshakeSeq uint64
	}](t)
	fields[conntrack.ProtoInfoSCTP, struct {
		State                   uint8
		VTagOriginal, VTagReply uint32
	}](t)
	fields[conntrack.Counter, struct {
		Direction      bool
		Packets, Bytes uint64
	}](t)
	fields[conntrack.Timestamp, struct {
		Start, Stop time.Time
	}](t)
	fields[conntrack.SequenceAdjust, struct {
		Direction                           bool
		Position, OffsetBefore, OffsetAfter uint32
	}](t)
	fields[conntrack.SynProxy, struct {
		ISN, ITS, TSOff uint32
	}](t)
	fields[conntrack.Flow, struct {
		ID                                 uint32
		Timeout                            uint32
		Timestamp                          conntrack.Timestamp
		Status                             conntrack.Status
		ProtoInfo                          conntrack.ProtoInfo
		Helper                             conntrack.Helper
		Zone                               uint16
		CountersOrig, CountersReply        conntrack.Counter
		SecurityContext                    conntrack.Security
		TupleOrig, TupleReply, TupleMaster conntrack.Tuple
		SeqAdjOrig, SeqAdjReply            conntrack.SequenceAdjust
		Labels, LabelsMask                 []byte
		Mark, Use                          uint32
		SynProxy                           conntrack.SynProxy
	}](t)
	fields[conntrack.Tuple, struct {
		IP    conntrack.IPTuple
		Proto conntrack.ProtoTuple
		Zone  uint16
	}](t)
	fields[conntrack.IPTuple, struct {
		SourceAddress, DestinationAddress netip.Addr
	}](t)
	fields[conntrack.ProtoTuple, struct {
		Protocol                    uint8
		SourcePort, DestinationPort uint16
		ICMPv4, ICMPv6              bool
		ICMPID                      uint16
		ICMPType, ICMPCode          uint8
	}](t)
	// The type of Event.Type is not exported by name; TestAPIEventTypes checks
	// it.
	fields[conntrack.Event, struct {
		Flow   *conntrack.Flow
		Expect *conntrack.Expect
	}](t)
	fields[conntrack.Expect, struct {
		ID, Timeout              uint32
		TupleMaster, Tuple, Mask conntrack.Tuple
		Zone                     uint16
		HelpName, Function       string
		Flags, Class             uint32
		NAT                      conntrack.ExpectNAT
	}](t)
	fields[conntrack.ExpectNAT, struct {
		Direction bool
		Tuple     conntrack.Tuple
	}](t)
	fields[conntrack.Filter, struct {
		Mark, Mask uint32
	}](t)
	fields[conntrack.Stats, struct {
		CPUID                                        uint16
		Found, Invalid, Ignore, Insert, InsertFailed uint32
		Drop, EarlyDrop, Error, SearchRestart        uint32
	}](t)
	fields[conntrack.StatsExpect, struct {
		CPUID               uint16
		New, Create, Delete uint32
	}](t)
	fields[conntrack.StatsGlobal, struct {
		Entries, MaxEntries uint32
	}](t)
	fields[conntrack.DumpOptions, struct {
		ZeroCounters bool
	}](t)
}

// fields asserts that Got has the fields of Want, declared in Got itself so
// that literals can name them. It also asserts that Got is comparable if Want
// is: tuples, for example, are map keys.
func fields[Got, Want any](t *testing.T) {
	got, want := reflect.TypeFor[Got](), reflect.TypeFor[Want]()

	for _, w := range reflect.VisibleFields(want) {
		g, ok := got.FieldByName(w.Name)
		if assert.True(t, ok && len(g.Index) == 1, "%s.%s is missing", got, w.Name) {
			assert.Equal(t, w.Type, g.Type, "%s.%s", got, w.Name)
		}
	}
	if want.Comparable() {
		assert.True(t, got.Comparable(), "%s is not comparable", got)
	}
}

func TestAPIBasicTypes(t *testing.T) {
	for _, tt := range []struct {
		value any
		want  reflect.Kind
	}{
		{conntrack.StatusFlag(0), reflect.Uint32},
		{conntrack.Security(""), reflect.String},
		{netfilter.NetlinkGroup(0), reflect.Uint8},
		{netfilter.ProtoFamily(0), reflect.Uint8},
	} {
		assert.Equal(t, tt.want, reflect.TypeOf(tt.value).Kind(), "%T", tt.value)
	}
}

func TestAPIConstants(t *testing.T) {
	for _, tt := range []struct{ got, want any }{
		{conntrack.StatusExpected, conntrack.StatusFlag(1)},
		{conntrack.StatusSeenReply, conntrack.StatusFlag(1 << 1)},
		{conntrack.StatusAssured, conntrack.StatusFlag(1 << 2)},
		{conntrack.StatusConfirmed, conntrack.StatusFlag(1 << 3)},
		{conntrack.StatusSrcNAT, conntrack.StatusFlag(1 << 4)},
		{conntrack.StatusDstNAT, conntrack.StatusFlag(1 << 5)},
		{conntrack.StatusNATMask, conntrack.StatusFlag(1<<4 | 1<<5)},
		{conntrack.StatusSeqAdjust, conntrack.StatusFlag(1 << 6)},
		{conntrack.StatusSrcNATDone, conntrack.StatusFlag(1 << 7)},
		{conntrack.StatusDstNATDone, conntrack.StatusFlag(1 << 8)},
		{conntrack.StatusNATDoneMask, conntrack.StatusFlag(1<<7 | 1<<8)},
		{conntrack.StatusDying, conntrack.StatusFlag(1 << 9)},
		{conntrack.StatusFixedTimeout, conntrack.StatusFlag(1 << 10)},
		{conntrack.StatusTemplate, conntrack.StatusFlag(1 << 11)},
		{conntrack.StatusUntracked, conntrack.StatusFlag(1 << 12)},
		{conntrack.StatusHelper, conntrack.StatusFlag(1 << 13)},
		{conntrack.StatusOffload, conntrack.StatusFlag(1 << 14)},

		{netfilter.GroupNone, netfilter.NetlinkGroup(0)},
		{netfilter.GroupCTNew, netfilter.NetlinkGroup(1)},
		{netfilter.GroupCTUpdate, netfilter.NetlinkGroup(2)},
		{netfilter.GroupCTDestroy, netfilter.NetlinkGroup(3)},
		{netfilter.GroupCTExpNew, netfilter.NetlinkGroup(4)},
		{netfilter.GroupCTExpUpdate, netfilter.NetlinkGroup(5)},
		{netfilter.GroupCTExpDestroy, netfilter.NetlinkGroup(6)},
		{netfilter.GroupNFTables, netfilter.NetlinkGroup(7)},
		{netfilter.GroupAcctQuota, netfilter.NetlinkGroup(8)},
		{netfilter.GroupNFTrace, netfilter.NetlinkGroup(9)},
		{netfilter.GroupsCT, []netfilter.NetlinkGroup{1, 2, 3}},
		{netfilter.GroupsCTExp, []netfilter.NetlinkGroup{4, 5, 6}},

		{netfilter.ProtoUnspec, netfilter.ProtoFamily(0)},
		{netfilter.ProtoInet, netfilter.ProtoFamily(1)},
		{netfilter.ProtoIPv4, netfilter.ProtoFamily(2)},
		{netfilter.ProtoARP, netfilter.ProtoFamily(3)},
		{netfilter.ProtoNetDev, netfilter.ProtoFamily(5)},
		{netfilter.ProtoBridge, netfilter.ProtoFamily(7)},
		{netfilter.ProtoIPv6, netfilter.ProtoFamily(10)},
		{netfilter.ProtoDECNet, netfilter.ProtoFamily(12)},
	} {
		assert.Equal(t, tt.want, tt.got)
	}
}

func TestAPIEventTypes(t *testing.T) {
	field, ok := reflect.TypeFor[conntrack.Event]().FieldByName("Type")
	assert.True(t, ok && len(field.Index) == 1)

	for i, typ := range []any{
		conntrack.EventUnknown,
		conntrack.EventNew,
		conntrack.EventUpdate,
		conntrack.EventDestroy,
		conntrack.EventExpNew,
		conntrack.EventExpDestroy,
	} {
		assert.Equal(t, field.Type, reflect.TypeOf(typ), "%v", typ)
		assert.Equal(t, fmt.Sprint(i), fmt.Sprintf("%d", typ), "%v", typ)
	}
}

func TestAPITexts(t *testing.T) {
	tuple := conntrack.Tuple{
		IP: conntrack.IPTuple{
			SourceAddress:      netip.MustParseAddr("1.2.3.4"),
			DestinationAddress: netip.MustParseAddr("fe80::1"),
		},
		Proto: conntrack.ProtoTuple{Protocol: 6, SourcePort: 54321, DestinationPort: 80},
	}
	const tupleText = "<tcp, Src: 1.2.3.4:54321, Dst: [fe80::1]:80>"

	unnamed := tuple
	unnamed.Proto.Protocol = 253 // for experiments: never gets a name

	seqAdj := conntrack.SequenceAdjust{Position: 42, OffsetBefore: 80, OffsetAfter: 747811}
	seqAdjReply := conntrack.SequenceAdjust{Direction: true, Position: 1, OffsetBefore: 2, OffsetAfter: 3}

	for _, tt := range []struct {
		value fmt.Stringer
		want  string
	}{
		{tuple, tupleText},
		{unnamed, "<253, Src: 1.2.3.4:54321, Dst: [fe80::1]:80>"},

		{conntrack.Status{}, "NONE"},
		{conntrack.Status{Value: conntrack.StatusSeenReply | conntrack.StatusAssured}, "SEEN_REPLY|ASSURED"},

		{conntrack.Counter{Packets: 1, Bytes: 42}, "[orig: 1 pkts/42 B]"},
		{conntrack.Counter{Direction: true}, "[reply: 0 pkts/0 B]"},

		{seqAdj, "[dir: orig, pos: 42, before: 80, after: 747811]"},
		{seqAdjReply, "[dir: reply, pos: 1, before: 2, after: 3]"},

		{
			conntrack.Stats{CPUID: 42, Found: 2, SearchRestart: 999},
			"<CPU 42 - Found: 2, Invalid: 0, Ignore: 0, Insert: 0, InsertFailed: 0, " +
				"Drop: 0, EarlyDrop: 0, Error: 0, SearchRestart: 999>",
		},

		{
			conntrack.Event{Type: conntrack.EventNew, Flow: &conntrack.Flow{
				TupleOrig:       tuple,
				CountersOrig:    conntrack.Counter{Packets: 1, Bytes: 42},
				CountersReply:   conntrack.Counter{Direction: true},
				Labels:          []byte{0xf0, 0xf0},
				LabelsMask:      []byte{0xff, 0xff},
				Mark:            0xf000baaa,
				SeqAdjOrig:      seqAdj,
				SeqAdjReply:     seqAdjReply,
				SecurityContext: "selinux_t",
			}},
			"[EventNew] (Unreplied) Timeout: 0, " + tupleText + ", Zone 0, " +
				"Acct: [orig: 1 pkts/42 B] [reply: 0 pkts/0 B], Label: <0xf0f0/0xffff>, Mark: <0xf000baaa>, " +
				"SeqAdjOrig: [dir: orig, pos: 42, before: 80, after: 747811], " +
				"SeqAdjReply: [dir: reply, pos: 1, before: 2, after: 3], SecCtx: selinux_t",
		},
		{
			conntrack.Event{Type: conntrack.EventUpdate, Flow: &conntrack.Flow{
				TupleOrig: tuple,
				Timeout:   30,
				Zone:      7,
				Status:    conntrack.Status{Value: conntrack.StatusSeenReply},
			}},
			"[EventUpdate] Timeout: 30, " + tupleText + ", Zone 7, " +
				"<No Accounting>, <No Labels>, <No Mark>, <No SeqAdjOrig>, <No SeqAdjReply>, <No SecCtx>",
		},
		{
			conntrack.Event{Type: conntrack.EventExpDestroy, Expect: &conntrack.Expect{
				TupleMaster: tuple,
				Tuple:       tuple,
				Mask:        tuple,
				HelpName:    "ftp",
				Class:       0x42,
			}},
			"[EventExpDestroy] Timeout: 0, Master: " + tupleText + ", Tuple: " + tupleText +
				", Mask: " + tupleText + ", Zone: 0, Helper: 'ftp', Class: 0x42",
		},

		{conntrack.Event{}, "[EventUnknown] <Empty Event>"},
		{conntrack.Event{Type: conntrack.EventDestroy}, "[EventDestroy] <Empty Event>"},
		{conntrack.Event{Type: conntrack.EventExpNew}, "[EventExpNew] <Empty Event>"},
	} {
		assert.Equal(t, tt.want, tt.value.String())
	}
}

// These declarations came after v0.5.0, with the same promise.

var (
	_ interface {
		Flows(ctx context.Context, f conntrack.Filter, opts *conntrack.DumpOptions) iter.Seq2[conntrack.Flow, error]
		Expects(ctx context.Context) iter.Seq2[conntrack.Expect, error]
		CreateBatch(flows []conntrack.Flow) error
		UpdateBatch(flows []conntrack.Flow) error
		DeleteBatch(flows []conntrack.Flow) error
		GetBatch(keys []conntrack.Flow) iter.Seq2[conntrack.Flow, error]
		DeleteFunc(ctx context.Context, f conntrack.Filter, match func(*conntrack.Flow) bool) (deleted int, err error)
		Events(ctx context.Context, groups []netfilter.NetlinkGroup, opts *conntrack.EventOptions) iter.Seq2[conntrack.Event, error]
	} = (*conntrack.Conn)(nil)

	_ interface {
		CreateOrUpdate(f conntrack.Flow) error
		CreateOrUpdateBatch(flows []conntrack.Flow) error
		UpdateFunc(ctx context.Context, f conntrack.Filter, change func(*conntrack.Flow) (conntrack.Flow, bool)) (updated int, err error)
		Dying(ctx context.Context) iter.Seq2[conntrack.Flow, error]
		Unconfirmed(ctx context.Context) iter.Seq2[conntrack.Flow, error]
		GetExpect(ex conntrack.Expect) (conntrack.Expect, error)
		UpdateExpect(ex conntrack.Expect) error
		DeleteExpect(ex conntrack.Expect) error
		FlushExpect() error
		FlushExpectHelper(name string) error
		ExpectsOf(ctx context.Context, master conntrack.Flow) iter.Seq2[conntrack.Expect, error]
		PortID() uint32
	} = (*conntrack.Conn)(nil)

	// These types can be printed and parsed.
	_ = []fmt.Stringer{conntrack.Flow{}, conntrack.Expect{}, conntrack.Event{}}
	_ = []json.Marshaler{conntrack.Flow{}, conntrack.Expect{}, conntrack.Event{}}
	_ = []json.Unmarshaler{(*conntrack.Flow)(nil), (*conntrack.Expect)(nil), (*conntrack.Event)(nil)}
	_ = []slog.LogValuer{conntrack.Flow{}, conntrack.Expect{}}

	_ *error = &conntrack.ErrOverrun
)

func TestAPIAddedFields(t *testing.T) {
	fields[conntrack.Filter, struct {
		Mark, Mask         uint32
		Family             netfilter.ProtoFamily
		Status, StatusMask conntrack.StatusFlag
		Zone               *uint16
		Orig, Reply        conntrack.Tuple
		TCPState           conntrack.TCPState
	}](t)
	fields[conntrack.EventOptions, struct {
		Filters []conntrack.Filter
		Except  []conntrack.Filter
		Joined  func()
	}](t)
}

func TestAPIErrOverrun(t *testing.T) {
	assert.ErrorIs(t, conntrack.ErrOverrun, syscall.ENOBUFS)
}
