//go:build linux

package conntrack

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// A field is an attribute by the kernel's names and numbers from the message on,
// its length, which is 0 where any is right, and where its value belongs.
type field struct {
	path  string
	types []uint16
	size  int
	of    func(v any) any
}

// kindFields are fields of what a kind of message decodes to.
type kindFields struct {
	name   string
	kind   *kind
	fields []field
}

// fixedFields are the attributes of fixed length.
var fixedFields = []kindFields{
	{"Flow", flowKind, flowFields},
	{"Expect", expectKind, expectFields},
	{"Stats", statsKind, statsFields},
	{"StatsExpect", statsExpectKind, statsExpectFields},
	{"StatsGlobal", statsGlobalKind, statsGlobalFields},
	{"Event", eventKind, eventFields},
}

// freeFields are the others. A NUL at the end belongs to the value if that is a
// []byte.
var freeFields = []kindFields{
	{"Flow", flowKind, []field{
		{"CTA_HELP: CTA_HELP_NAME", []uint16{5, 1}, 0, in(func(f *Flow) any { return f.Helper.Name })},
		{"CTA_HELP: CTA_HELP_INFO", []uint16{5, 2}, 0, in(func(f *Flow) any { return f.Helper.Info })},
		{"CTA_SECCTX: CTA_SECCTX_NAME", []uint16{19, 1}, 0, in(func(f *Flow) any { return string(f.SecurityContext) })},
		{"CTA_LABELS", []uint16{22}, 0, in(func(f *Flow) any { return f.Labels })},
		{"CTA_LABELS_MASK", []uint16{23}, 0, in(func(f *Flow) any { return f.LabelsMask })},
	}},
	{"Expect", expectKind, []field{
		{"CTA_EXPECT_HELP_NAME", []uint16{6}, 0, in(func(ex *Expect) any { return ex.HelpName })},
		{"CTA_EXPECT_FN", []uint16{11}, 0, in(func(ex *Expect) any { return ex.Function })},
	}},
}

// expectNATDirection is the one attribute that is a truth value.
var expectNATDirection = field{
	"CTA_EXPECT_NAT: CTA_EXPECT_NAT_DIR", []uint16{10, 1}, 4,
	in(func(ex *Expect) any { return ex.NAT.Direction }),
}

// in adapts fn to the decoded value of a kind.
func in[T any](fn func(*T) any) func(any) any {
	return func(v any) any { return fn(v.(*T)) }
}

// tupleFields returns the fields of a Tuple in the attribute with the given
// types.
func tupleFields(path string, tuple func(v any) *Tuple, types ...uint16) []field {
	at := func(name string, size int, fn func(t *Tuple) any, inner ...uint16) field {
		return field{path + ": " + name, slices.Concat(types, inner), size, func(v any) any { return fn(tuple(v)) }}
	}
	return []field{
		at("CTA_TUPLE_IP: CTA_IP_V4_SRC", 4, func(t *Tuple) any { return t.IP.SourceAddress }, 1, 1),
		at("CTA_TUPLE_IP: CTA_IP_V4_DST", 4, func(t *Tuple) any { return t.IP.DestinationAddress }, 1, 2),
		at("CTA_TUPLE_IP: CTA_IP_V6_SRC", 16, func(t *Tuple) any { return t.IP.SourceAddress }, 1, 3),
		at("CTA_TUPLE_IP: CTA_IP_V6_DST", 16, func(t *Tuple) any { return t.IP.DestinationAddress }, 1, 4),
		at("CTA_TUPLE_PROTO: CTA_PROTO_NUM", 1, func(t *Tuple) any { return t.Proto.Protocol }, 2, 1),
		at("CTA_TUPLE_PROTO: CTA_PROTO_SRC_PORT", 2, func(t *Tuple) any { return t.Proto.SourcePort }, 2, 2),
		at("CTA_TUPLE_PROTO: CTA_PROTO_DST_PORT", 2, func(t *Tuple) any { return t.Proto.DestinationPort }, 2, 3),
		at("CTA_TUPLE_PROTO: CTA_PROTO_ICMP_ID", 2, func(t *Tuple) any { return t.Proto.ICMPID }, 2, 4),
		at("CTA_TUPLE_PROTO: CTA_PROTO_ICMP_TYPE", 1, func(t *Tuple) any { return t.Proto.ICMPType }, 2, 5),
		at("CTA_TUPLE_PROTO: CTA_PROTO_ICMP_CODE", 1, func(t *Tuple) any { return t.Proto.ICMPCode }, 2, 6),
		at("CTA_TUPLE_PROTO: CTA_PROTO_ICMPV6_ID", 2, func(t *Tuple) any { return t.Proto.ICMPID }, 2, 7),
		at("CTA_TUPLE_PROTO: CTA_PROTO_ICMPV6_TYPE", 1, func(t *Tuple) any { return t.Proto.ICMPType }, 2, 8),
		at("CTA_TUPLE_PROTO: CTA_PROTO_ICMPV6_CODE", 1, func(t *Tuple) any { return t.Proto.ICMPCode }, 2, 9),
		at("CTA_TUPLE_ZONE", 2, func(t *Tuple) any { return t.Zone }, 3),
	}
}

var flowFields = slices.Concat(
	tupleFields("CTA_TUPLE_ORIG", func(v any) *Tuple { return &v.(*Flow).TupleOrig }, 1),
	tupleFields("CTA_TUPLE_REPLY", func(v any) *Tuple { return &v.(*Flow).TupleReply }, 2),
	tupleFields("CTA_TUPLE_MASTER", func(v any) *Tuple { return &v.(*Flow).TupleMaster }, 14),
	[]field{
		{"CTA_STATUS", []uint16{3}, 4, in(func(f *Flow) any { return f.Status.Value })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_TCP: CTA_PROTOINFO_TCP_STATE", []uint16{4, 1, 1}, 1, in(func(f *Flow) any { return f.ProtoInfo.TCP.State })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_TCP: CTA_PROTOINFO_TCP_WSCALE_ORIGINAL", []uint16{4, 1, 2}, 1, in(func(f *Flow) any { return f.ProtoInfo.TCP.OriginalWindowScale })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_TCP: CTA_PROTOINFO_TCP_WSCALE_REPLY", []uint16{4, 1, 3}, 1, in(func(f *Flow) any { return f.ProtoInfo.TCP.ReplyWindowScale })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_TCP: CTA_PROTOINFO_TCP_FLAGS_ORIGINAL", []uint16{4, 1, 4}, 2, in(func(f *Flow) any { return f.ProtoInfo.TCP.OriginalFlags })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_TCP: CTA_PROTOINFO_TCP_FLAGS_REPLY", []uint16{4, 1, 5}, 2, in(func(f *Flow) any { return f.ProtoInfo.TCP.ReplyFlags })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_DCCP: CTA_PROTOINFO_DCCP_STATE", []uint16{4, 2, 1}, 1, in(func(f *Flow) any { return f.ProtoInfo.DCCP.State })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_DCCP: CTA_PROTOINFO_DCCP_ROLE", []uint16{4, 2, 2}, 1, in(func(f *Flow) any { return f.ProtoInfo.DCCP.Role })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_DCCP: CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ", []uint16{4, 2, 3}, 8, in(func(f *Flow) any { return f.ProtoInfo.DCCP.HandshakeSeq })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_SCTP: CTA_PROTOINFO_SCTP_STATE", []uint16{4, 3, 1}, 1, in(func(f *Flow) any { return f.ProtoInfo.SCTP.State })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_SCTP: CTA_PROTOINFO_SCTP_VTAG_ORIGINAL", []uint16{4, 3, 2}, 4, in(func(f *Flow) any { return f.ProtoInfo.SCTP.VTagOriginal })},
		{"CTA_PROTOINFO: CTA_PROTOINFO_SCTP: CTA_PROTOINFO_SCTP_VTAG_REPLY", []uint16{4, 3, 3}, 4, in(func(f *Flow) any { return f.ProtoInfo.SCTP.VTagReply })},
		{"CTA_TIMEOUT", []uint16{7}, 4, in(func(f *Flow) any { return f.Timeout })},
		{"CTA_MARK", []uint16{8}, 4, in(func(f *Flow) any { return f.Mark })},
		{"CTA_COUNTERS_ORIG: CTA_COUNTERS_PACKETS", []uint16{9, 1}, 8, in(func(f *Flow) any { return f.CountersOrig.Packets })},
		{"CTA_COUNTERS_ORIG: CTA_COUNTERS_BYTES", []uint16{9, 2}, 8, in(func(f *Flow) any { return f.CountersOrig.Bytes })},
		{"CTA_COUNTERS_ORIG: CTA_COUNTERS32_PACKETS", []uint16{9, 3}, 4, in(func(f *Flow) any { return f.CountersOrig.Packets })},
		{"CTA_COUNTERS_ORIG: CTA_COUNTERS32_BYTES", []uint16{9, 4}, 4, in(func(f *Flow) any { return f.CountersOrig.Bytes })},
		{"CTA_COUNTERS_REPLY: CTA_COUNTERS_PACKETS", []uint16{10, 1}, 8, in(func(f *Flow) any { return f.CountersReply.Packets })},
		{"CTA_COUNTERS_REPLY: CTA_COUNTERS_BYTES", []uint16{10, 2}, 8, in(func(f *Flow) any { return f.CountersReply.Bytes })},
		{"CTA_COUNTERS_REPLY: CTA_COUNTERS32_PACKETS", []uint16{10, 3}, 4, in(func(f *Flow) any { return f.CountersReply.Packets })},
		{"CTA_COUNTERS_REPLY: CTA_COUNTERS32_BYTES", []uint16{10, 4}, 4, in(func(f *Flow) any { return f.CountersReply.Bytes })},
		{"CTA_USE", []uint16{11}, 4, in(func(f *Flow) any { return f.Use })},
		{"CTA_ID", []uint16{12}, 4, in(func(f *Flow) any { return f.ID })},
		{"CTA_SEQ_ADJ_ORIG: CTA_SEQADJ_CORRECTION_POS", []uint16{15, 1}, 4, in(func(f *Flow) any { return f.SeqAdjOrig.Position })},
		{"CTA_SEQ_ADJ_ORIG: CTA_SEQADJ_OFFSET_BEFORE", []uint16{15, 2}, 4, in(func(f *Flow) any { return f.SeqAdjOrig.OffsetBefore })},
		{"CTA_SEQ_ADJ_ORIG: CTA_SEQADJ_OFFSET_AFTER", []uint16{15, 3}, 4, in(func(f *Flow) any { return f.SeqAdjOrig.OffsetAfter })},
		{"CTA_SEQ_ADJ_REPLY: CTA_SEQADJ_CORRECTION_POS", []uint16{16, 1}, 4, in(func(f *Flow) any { return f.SeqAdjReply.Position })},
		{"CTA_SEQ_ADJ_REPLY: CTA_SEQADJ_OFFSET_BEFORE", []uint16{16, 2}, 4, in(func(f *Flow) any { return f.SeqAdjReply.OffsetBefore })},
		{"CTA_SEQ_ADJ_REPLY: CTA_SEQADJ_OFFSET_AFTER", []uint16{16, 3}, 4, in(func(f *Flow) any { return f.SeqAdjReply.OffsetAfter })},
		{"CTA_ZONE", []uint16{18}, 2, in(func(f *Flow) any { return f.Zone })},
		{"CTA_TIMESTAMP: CTA_TIMESTAMP_START", []uint16{20, 1}, 8, in(func(f *Flow) any { return f.Timestamp.Start })},
		{"CTA_TIMESTAMP: CTA_TIMESTAMP_STOP", []uint16{20, 2}, 8, in(func(f *Flow) any { return f.Timestamp.Stop })},
		{"CTA_MARK_MASK", []uint16{21}, 4, in(func(f *Flow) any { return f.MarkMask })},
		{"CTA_NAT_SRC: CTA_NAT_V4_MINIP", []uint16{6, 1}, 4, in(func(f *Flow) any { return f.NAT.Source.MinAddr })},
		{"CTA_NAT_SRC: CTA_NAT_V4_MAXIP", []uint16{6, 2}, 4, in(func(f *Flow) any { return f.NAT.Source.MaxAddr })},
		{"CTA_NAT_SRC: CTA_NAT_V6_MINIP", []uint16{6, 4}, 16, in(func(f *Flow) any { return f.NAT.Source.MinAddr })},
		{"CTA_NAT_SRC: CTA_NAT_V6_MAXIP", []uint16{6, 5}, 16, in(func(f *Flow) any { return f.NAT.Source.MaxAddr })},
		{"CTA_NAT_SRC: CTA_NAT_PROTO: CTA_PROTONAT_PORT_MIN", []uint16{6, 3, 1}, 2, in(func(f *Flow) any { return f.NAT.Source.MinPort })},
		{"CTA_NAT_SRC: CTA_NAT_PROTO: CTA_PROTONAT_PORT_MAX", []uint16{6, 3, 2}, 2, in(func(f *Flow) any { return f.NAT.Source.MaxPort })},
		{"CTA_NAT_DST: CTA_NAT_V4_MINIP", []uint16{13, 1}, 4, in(func(f *Flow) any { return f.NAT.Destination.MinAddr })},
		{"CTA_SYNPROXY: CTA_SYNPROXY_ISN", []uint16{24, 1}, 4, in(func(f *Flow) any { return f.SynProxy.ISN })},
		{"CTA_SYNPROXY: CTA_SYNPROXY_ITS", []uint16{24, 2}, 4, in(func(f *Flow) any { return f.SynProxy.ITS })},
		{"CTA_SYNPROXY: CTA_SYNPROXY_TSOFF", []uint16{24, 3}, 4, in(func(f *Flow) any { return f.SynProxy.TSOff })},
	},
)

var expectFields = slices.Concat(
	tupleFields("CTA_EXPECT_MASTER", func(v any) *Tuple { return &v.(*Expect).TupleMaster }, 1),
	tupleFields("CTA_EXPECT_TUPLE", func(v any) *Tuple { return &v.(*Expect).Tuple }, 2),
	tupleFields("CTA_EXPECT_MASK", func(v any) *Tuple { return &v.(*Expect).Mask }, 3),
	tupleFields("CTA_EXPECT_NAT: CTA_EXPECT_NAT_TUPLE", func(v any) *Tuple { return &v.(*Expect).NAT.Tuple }, 10, 2),
	[]field{
		{"CTA_EXPECT_TIMEOUT", []uint16{4}, 4, in(func(ex *Expect) any { return ex.Timeout })},
		{"CTA_EXPECT_ID", []uint16{5}, 4, in(func(ex *Expect) any { return ex.ID })},
		{"CTA_EXPECT_ZONE", []uint16{7}, 2, in(func(ex *Expect) any { return ex.Zone })},
		{"CTA_EXPECT_FLAGS", []uint16{8}, 4, in(func(ex *Expect) any { return ex.Flags })},
		{"CTA_EXPECT_CLASS", []uint16{9}, 4, in(func(ex *Expect) any { return ex.Class })},
	},
)

var statsFields = []field{
	{"CTA_STATS_FOUND", []uint16{2}, 4, in(func(s *Stats) any { return s.Found })},
	{"CTA_STATS_INVALID", []uint16{4}, 4, in(func(s *Stats) any { return s.Invalid })},
	{"CTA_STATS_IGNORE", []uint16{5}, 4, in(func(s *Stats) any { return s.Ignore })},
	{"CTA_STATS_INSERT", []uint16{8}, 4, in(func(s *Stats) any { return s.Insert })},
	{"CTA_STATS_INSERT_FAILED", []uint16{9}, 4, in(func(s *Stats) any { return s.InsertFailed })},
	{"CTA_STATS_DROP", []uint16{10}, 4, in(func(s *Stats) any { return s.Drop })},
	{"CTA_STATS_EARLY_DROP", []uint16{11}, 4, in(func(s *Stats) any { return s.EarlyDrop })},
	{"CTA_STATS_ERROR", []uint16{12}, 4, in(func(s *Stats) any { return s.Error })},
	{"CTA_STATS_SEARCH_RESTART", []uint16{13}, 4, in(func(s *Stats) any { return s.SearchRestart })},
	{"CTA_STATS_CLASH_RESOLVE", []uint16{14}, 4, in(func(s *Stats) any { return s.ClashResolve })},
	{"CTA_STATS_CHAIN_TOOLONG", []uint16{15}, 4, in(func(s *Stats) any { return s.ChainTooLong })},
	{"CTA_STATS_SEARCHED", []uint16{1}, 4, in(func(s *Stats) any { return s.Searched })},
	{"CTA_STATS_NEW", []uint16{3}, 4, in(func(s *Stats) any { return s.New })},
	{"CTA_STATS_DELETE", []uint16{6}, 4, in(func(s *Stats) any { return s.Delete })},
	{"CTA_STATS_DELETE_LIST", []uint16{7}, 4, in(func(s *Stats) any { return s.DeleteList })},
}

var statsExpectFields = []field{
	{"CTA_STATS_EXP_NEW", []uint16{1}, 4, in(func(s *StatsExpect) any { return s.New })},
	{"CTA_STATS_EXP_CREATE", []uint16{2}, 4, in(func(s *StatsExpect) any { return s.Create })},
	{"CTA_STATS_EXP_DELETE", []uint16{3}, 4, in(func(s *StatsExpect) any { return s.Delete })},
}

var statsGlobalFields = []field{
	{"CTA_STATS_GLOBAL_ENTRIES", []uint16{1}, 4, in(func(s *StatsGlobal) any { return s.Entries })},
	{"CTA_STATS_GLOBAL_MAX_ENTRIES", []uint16{2}, 4, in(func(s *StatsGlobal) any { return s.MaxEntries })},
}

// eventFields are the fields that only events have.
var eventFields = []field{
	{"CTA_TIMESTAMP_EVENT", []uint16{27}, 8, in(func(e *Event) any { return e.Time })},
	{"CTA_STATUS", []uint16{3}, 4, in(func(e *Event) any { return e.Flow.Status.Value })},
}

// attr returns an attribute with its padding.
func attr(typ uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// nested returns value wrapped in nested attributes.
func nested(types []uint16, value []byte) []byte {
	if len(types) == 1 {
		return attr(types[0], value...)
	}
	return attr(types[0]|unix.NLA_F_NESTED, nested(types[1:], value)...)
}

// wireMessage returns a message with the given attributes. As an event, it is
// about a new flow.
func wireMessage(attributes []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(nfnl.NFSubsysCTNetlink) << 8, Flags: netlink.Create | netlink.Excl},
		Data:   append([]byte{unix.AF_INET, 0, 0, 0}, attributes...),
	}
}

// TestFields asserts that each attribute is decoded if its length is right, and
// refused otherwise.
func TestFields(t *testing.T) {
	t.Parallel()
	value := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}
	for _, tt := range fixedFields {
		for _, f := range tt.fields {
			t.Run(tt.name+"/"+f.path, func(t *testing.T) {
				t.Parallel()
				for size := range value {
					got, err := tt.kind.decode(wireMessage(nested(f.types, value[:size])))
					if size == f.size {
						require.NoError(t, err)
						require.Equal(t, number(value[:size]), number(f.of(got)))
						continue
					}
					require.EqualError(t, err, fmt.Sprintf("%s: malformed message: %d bytes, want %d", f.path, size, f.size))
					require.ErrorIs(t, err, nfnl.ErrMalformed)
				}
			})
		}
	}
}

// number returns the value of a field as the number that its bytes form on the
// wire.
func number(v any) string {
	switch x := v.(type) {
	case []byte:
		return new(big.Int).SetBytes(x).String()
	case netip.Addr:
		return number(x.AsSlice())
	case time.Time:
		return fmt.Sprint(x.UnixNano())
	}
	return fmt.Sprint(reflect.ValueOf(v).Uint())
}

// TestStrings asserts how attributes of variable length are decoded.
func TestStrings(t *testing.T) {
	t.Parallel()
	for _, tt := range freeFields {
		for _, f := range tt.fields {
			t.Run(f.path, func(t *testing.T) {
				t.Parallel()
				for _, value := range []string{"", "\x00", "a", "ftp\x00", "ftp", "a\x00b\x00", strings.Repeat("long", 1000)} {
					v, err := tt.kind.decode(wireMessage(nested(f.types, []byte(value))))
					require.NoError(t, err)
					switch got := f.of(v).(type) {
					case []byte:
						require.Equal(t, value, string(got))
					default:
						require.Equal(t, strings.TrimSuffix(value, "\x00"), got, "%q", value)
					}
				}
			})
		}
	}
}

// TestExpectNATDirection asserts how the only boolean attribute is decoded.
func TestExpectNATDirection(t *testing.T) {
	t.Parallel()
	f := &expectNATDirection
	for value, want := range map[string]bool{"\x00\x00\x00\x00": false, "\x00\x00\x00\x01": true, "\x01\x00\x00\x00": true} {
		v, err := expectKind.decode(wireMessage(nested(f.types, []byte(value))))
		require.NoError(t, err)
		require.Equal(t, want, f.of(v), "%q", value)
	}
	_, err := expectKind.decode(wireMessage(nested(f.types, []byte{1})))
	require.EqualError(t, err, f.path+": malformed message: 1 bytes, want 4")
}

// requestFields are the attributes that the kernel takes and never sends.
var requestFields = []field{
	{path: "CTA_STATUS_MASK", types: []uint16{26}},
	{path: "CTA_FILTER: CTA_FILTER_ORIG_FLAGS", types: []uint16{25, 1}},
	{path: "CTA_FILTER: CTA_FILTER_REPLY_FLAGS", types: []uint16{25, 2}},
}

// unusedAttributes are the constants of attributes that no supported kernel sends
// or looks at.
var unusedAttributes = []string{"ctaSecMark"}

// notTaken says of attributes, by the beginning of their paths, why they are
// decoded and not encoded.
var notTaken = map[string]string{
	"CTA_COUNTERS":                      "the kernel counts",
	"CTA_SECCTX":                        "the security module sets it",
	"CTA_STATS":                         "the kernel counts",
	"CTA_TIMESTAMP":                     "the kernel has the time",
	"CTA_USE":                           "the kernel counts",
	"CTA_EXPECT_MASTER: CTA_TUPLE_ZONE": "the kernel refuses it: the zone is CTA_EXPECT_ZONE",
	"CTA_EXPECT_TUPLE: CTA_TUPLE_ZONE":  "the kernel refuses it: the zone is CTA_EXPECT_ZONE",
	"CTA_EXPECT_MASK: CTA_TUPLE_ZONE":   "the kernel refuses it: a mask has no zone",
}

// TestAttributeNames asserts that each attribute of enum.go has a name in its
// tables, and a wire test: a field above, for TestAttributes.
func TestAttributeNames(t *testing.T) {
	t.Parallel()
	received, sent := make(map[string]bool), make(map[string]bool)
	for _, c := range wireCases() {
		addNames(received, &c.field)
	}
	for _, f := range requestFields {
		addNames(sent, &f)
	}
	constants, names := readEnums(t)
	require.NotEmpty(t, constants)
	for _, constant := range constants {
		folded := foldName(constant)
		if sent[folded] || slices.Contains(unusedAttributes, constant) {
			continue
		}
		if name := names[constant]; foldName(name) != folded {
			t.Errorf("%s has the kernel name %q in enum.go's tables", constant, name)
		}
		if !received[folded] {
			t.Errorf("%s has no wire test, which would show that it is decoded, encoded and in JSON", constant)
		}
	}
}

// TestAttributes asserts that each attribute that the kernel sends is decoded,
// comes back from JSON, and is encoded if the kernel takes it.
func TestAttributes(t *testing.T) {
	t.Parallel()
	for _, c := range wireCases() {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			var parents []byte
			if n := len(c.types) - 1; n > 0 {
				parents = nested(c.types[:n], nil)
			}
			without, err := c.kind.decode(wireMessage(parents))
			require.NoError(t, err)
			v, err := c.kind.decode(wireMessage(nested(c.types, c.value)))
			require.NoError(t, err)
			require.NotEqual(t, without, v, "not decoded")

			b, err := json.Marshal(v)
			require.NoError(t, err)
			again := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			require.NoError(t, json.Unmarshal(b, again))
			require.Equal(t, v, again, "not in the JSON: %s", b)

			reason := c.notTaken()
			require.Equal(t, reason == "", c.encoded(t),
				"encoded or not, where notTaken says %q, and nothing of what the kernel takes", reason)
		})
	}
}

// TestRequestAttributes asserts that what the kernel only takes is encoded.
func TestRequestAttributes(t *testing.T) {
	t.Parallel()
	filter := Filter{
		Family: netfilter.ProtoIPv4, Status: StatusAssured,
		Orig:  Tuple{Proto: ProtoTuple{Protocol: ProtocolTCP}},
		Reply: Tuple{Proto: ProtoTuple{Protocol: ProtocolTCP}},
	}
	k, err := filter.plan(false, func(feature) bool { return true })
	require.NoError(t, err)
	r := k.dumpRequest(ctGet)
	defer r.free()
	for _, f := range requestFields {
		require.NotNil(t, find(encoded(&r.enc), f.types), "%s is not encoded", f.path)
	}
}

// A wireCase is a field with a value in a kind of message.
type wireCase struct {
	field
	kind  *kind
	value []byte
}

func wireCases() (cases []wireCase) {
	value := []byte{9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 0}
	for _, k := range fixedFields {
		for _, f := range k.fields {
			cases = append(cases, wireCase{f, k.kind, value[:f.size]})
		}
	}
	for _, k := range freeFields {
		for _, f := range k.fields {
			cases = append(cases, wireCase{f, k.kind, value})
		}
	}
	return append(cases, wireCase{expectNATDirection, expectKind, []byte{0, 0, 0, 1}})
}

// enumSource is compiled in, since tests also run where there is no source.
//
//go:embed enum.go
var enumSource string

// readEnums returns the constants in enum.go that number attributes, and their names
// in its tables.
func readEnums(t *testing.T) (constants []string, names map[string]string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "enum.go", enumSource, 0)
	require.NoError(t, err)
	names = make(map[string]string)
	for _, decl := range file.Decls {
		decl := decl.(*ast.GenDecl)
		for _, spec := range decl.Specs {
			spec := spec.(*ast.ValueSpec)
			name := spec.Names[0].Name
			switch {
			case decl.Tok == token.VAR:
				addTable(t, names, spec.Values[0].(*ast.CompositeLit))
			case strings.HasPrefix(name, "cta") && !strings.HasSuffix(name, "Unspec"):
				constants = append(constants, name)
			}
		}
	}
	return constants, names
}

// addTable adds the names of constants in a table.
func addTable(t *testing.T, names map[string]string, table *ast.CompositeLit) {
	t.Helper()
	for _, element := range table.Elts {
		pair := element.(*ast.KeyValueExpr)
		name, err := strconv.Unquote(pair.Value.(*ast.BasicLit).Value)
		require.NoError(t, err)
		names[pair.Key.(*ast.Ident).Name] = name
	}
}

// addNames adds the names in f's path, folded.
func addNames(names map[string]bool, f *field) {
	for name := range strings.SplitSeq(f.path, ": ") {
		names[foldName(name)] = true
	}
}

// foldName returns what a constant and the kernel's name of it have in common.
func foldName(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// notTaken returns why the kernel does not take c, or "" if it does.
func (c *wireCase) notTaken() string {
	for path, reason := range notTaken {
		if strings.HasPrefix(c.path, path) {
			return reason
		}
	}
	return ""
}

// encoded reports whether c, decoded as part of an entry, stands with its value in
// a request about that entry.
func (c *wireCase) encoded(t *testing.T) bool {
	t.Helper()
	for _, entry := range c.entries() {
		v, err := c.kind.decode(wireMessage(slices.Concat(entry, nested(c.types, c.value))))
		require.NoError(t, err)
		for _, request := range sentFor(v) {
			if bytes.Equal(find(request, c.types), c.value) {
				return true
			}
		}
	}
	return false
}

// entries returns the attributes of flows or expectations of both families, with
// ports and with ICMP, which have what one of the attributes needs beside it.
func (c *wireCase) entries() [][]byte {
	addr := netip.MustParseAddr
	any4 := NATRange{addr("0.0.0.1"), addr("255.0.0.0"), 1, 65535}
	any6 := NATRange{addr("::1"), addr("ff00::"), 1, 65535}
	return [][]byte{
		c.entry(ProtocolTCP, addr("10.0.0.1"), any4),
		c.entry(ProtocolICMP, addr("10.0.0.1"), any4),
		c.entry(ProtocolTCP, addr("2001:db8::1"), any6),
		c.entry(ProtocolICMPv6, addr("2001:db8::1"), any6),
	}
}

func (c *wireCase) entry(proto uint8, src netip.Addr, nat NATRange) []byte {
	f := NewFlow(proto, 0, src, src.Next(), 1, 2, 120, 0)
	switch c.kind {
	case expectKind:
		return encodeExpect(&Expect{
			TupleMaster: f.TupleOrig, Tuple: f.TupleOrig, Mask: f.TupleOrig,
			NAT: ExpectNAT{Tuple: f.TupleOrig},
		})
	case flowKind, eventKind:
		f.TupleMaster = f.TupleOrig
		f.NAT = &NAT{nat, nat}
		f.Helper.Name = "ftp"
		f.Labels = make([]byte, 16)
		return encodeFlow(&f)
	}
	return nil
}

// sentFor returns the attributes that are sent to create, update and delete an
// entry.
func sentFor(v any) [][]byte {
	switch v := v.(type) {
	case *Event:
		return sentFor(v.Flow)
	case *Flow:
		update := *v
		update.TupleMaster, update.NAT = Tuple{}, nil // only a new flow has them
		sent := [][]byte{encodeFlow(v)}
		for o, f := range map[op]*Flow{opUpdate: &update, opDelete: v} {
			var e nfnl.Encoder
			if err := (attempt{op: o}).append(&e, f, 0); err != nil {
				return nil
			}
			sent = append(sent, encoded(&e))
		}
		return sent
	case *Expect:
		r := newRequest()
		defer r.free()
		if err := r.expectKey(expDelete, 0, v); err != nil {
			return nil
		}
		return [][]byte{encodeExpect(v), encoded(&r.enc)}
	}
	return nil
}

// find returns the value of the attribute in attributes of those types, or nil.
func find(b []byte, types []uint16) []byte {
	var d nfnl.Decoder
	for typ, v := range d.Attributes(b) {
		switch {
		case typ != types[0]:
		case len(types) == 1:
			return v
		default:
			return find(v, types[1:])
		}
	}
	return nil
}

// TestMalformed asserts that errors say where a message is malformed.
func TestMalformed(t *testing.T) {
	t.Parallel()
	// length returns the attribute b with a different length in its header.
	length := func(n uint16, b []byte) []byte {
		binary.NativeEndian.PutUint16(b, n)
		return b
	}
	const nest = unix.NLA_F_NESTED
	address := func() []byte { return attr(1, 10, 0, 0, 1) }

	tests := []struct {
		name       string
		attributes []byte
		err        string
	}{
		{"length 0", length(0, attr(3, 0, 0, 0, 1)), "CTA_STATUS: malformed message: attribute of 0 bytes where its header has 4 and there are 8"},
		{"length 1", length(1, attr(3, 0, 0, 0, 1)), "CTA_STATUS: malformed message: attribute of 1 bytes where its header has 4 and there are 8"},
		{"length 2", length(2, attr(99, 0, 0, 0, 1)), "attribute 99: malformed message: attribute of 2 bytes where its header has 4 and there are 8"},
		{"length 3", length(3, attr(8, 0, 0, 0, 1)), "CTA_MARK: malformed message: attribute of 3 bytes where its header has 4 and there are 8"},
		{"longer than the message", length(9, attr(3, 0, 0, 0, 1)), "CTA_STATUS: malformed message: attribute of 9 bytes where its header has 4 and there are 8"},
		{
			"unknown, longer than the message", length(9, attr(99, 0, 0, 0, 1)),
			"attribute 99: malformed message: attribute of 9 bytes where its header has 4 and there are 8",
		},
		{
			"nested, length 0", attr(1|nest, attr(1|nest, length(0, address())...)...),
			"CTA_TUPLE_ORIG: CTA_TUPLE_IP: CTA_IP_V4_SRC: malformed message: attribute of 0 bytes where its header has 4 and there are 8",
		},
		{
			"longer than its parent, though there is more of the message",
			slices.Concat(attr(1|nest, attr(1|nest, length(12, address())...)...), attr(3, 0, 0, 0, 1)),
			"CTA_TUPLE_ORIG: CTA_TUPLE_IP: CTA_IP_V4_SRC: malformed message: attribute of 12 bytes where its header has 4 and there are 8",
		},
		{
			"parent longer than its own", slices.Concat(attr(1|nest, length(16, attr(1|nest, address()...))...), attr(3, 0, 0, 0, 1)),
			"CTA_TUPLE_ORIG: CTA_TUPLE_IP: malformed message: attribute of 16 bytes where its header has 4 and there are 12",
		},
		{
			"unknown in nested, length 0", attr(5|nest, length(0, attr(99))...),
			"CTA_HELP: attribute 99: malformed message: attribute of 0 bytes where its header has 4 and there are 4",
		},
		{"rest", slices.Concat(attr(3, 0, 0, 0, 1), []byte{1, 2, 3}), "attribute 0: malformed message: 3 bytes after the last attribute"},
		{
			"rest in nested", attr(9|nest, slices.Concat(attr(1, 0, 0, 0, 0, 0, 0, 0, 1), []byte{1})...),
			"CTA_COUNTERS_ORIG: attribute 0: malformed message: 1 bytes after the last attribute",
		},
		{"value instead of nested", attr(1|nest, 1, 2, 3), "CTA_TUPLE_ORIG: attribute 0: malformed message: 3 bytes after the last attribute"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, k := range []*kind{flowKind, eventKind} {
				_, err := k.decode(wireMessage(tt.attributes))
				require.EqualError(t, err, tt.err)
				require.ErrorIs(t, err, nfnl.ErrMalformed)
			}
		})
	}
}

// TestNoPadding asserts that the last attribute at each level needs no padding.
func TestNoPadding(t *testing.T) {
	t.Parallel()
	port := attr(3, 0, 80)
	tuple := attr(1|unix.NLA_F_NESTED, attr(2|unix.NLA_F_NESTED, port[:6]...)[:10]...)[:14]
	v, err := flowKind.decode(wireMessage(tuple))
	require.NoError(t, err)
	require.EqualValues(t, 80, v.(*Flow).TupleOrig.Proto.DestinationPort)
}

// TestShortMessage asserts that a message without an nfnetlink header is
// refused.
func TestShortMessage(t *testing.T) {
	t.Parallel()
	m := wireMessage(nil)
	for n := range m.Data {
		m.Data = m.Data[:n]
		var e Event
		require.ErrorIs(t, e.Unmarshal(m), nfnl.ErrMalformed, "%d bytes", n)
	}
}

func TestUnknownEvent(t *testing.T) {
	t.Parallel()
	for _, typ := range []netlink.HeaderType{0x0103, 0x0203, 0x0000, 0x0a00, 0xffff, netlink.Done} {
		e := Event{Type: EventNew, Flow: new(Flow)}
		err := e.Unmarshal(netlink.Message{Header: netlink.Header{Type: typ}, Data: make([]byte, 4)})
		require.ErrorIs(t, err, ErrUnknownEvent, "type %#x", uint16(typ))
		require.Equal(t, Event{}, e)
	}
}

// TestUnknownAttributes asserts that unknown attributes, such as those of newer
// kernels, are ignored at every level of each golden message.
func TestUnknownAttributes(t *testing.T) {
	t.Parallel()
	for _, file := range goldenFiles(t) {
		r := readRecord(t, file)
		k := kindOf(r.Type)
		m := r.message(t)
		want, err := k.decode(m)
		require.NoError(t, err)
		m.Data = slices.Concat(m.Data[:sizeofNfgenmsg], withUnknown(m.Data[sizeofNfgenmsg:]))
		got, err := k.decode(m)
		require.NoError(t, err, file)
		require.Equal(t, want, got, file)
	}
}

func kindOf(typ string) *kind {
	return map[string]*kind{
		"*conntrack.Flow":        flowKind,
		"*conntrack.Expect":      expectKind,
		"*conntrack.Event":       eventKind,
		"*conntrack.Stats":       statsKind,
		"*conntrack.StatsExpect": statsExpectKind,
		"*conntrack.StatsGlobal": statsGlobalKind,
	}[typ]
}

// withUnknown returns the attributes in b with unknown ones inserted before,
// between and after them, at all levels.
func withUnknown(b []byte) (out []byte) {
	unknown := slices.Concat(attr(0x3000, 1, 2, 3), attr(0x3001|unix.NLA_F_NESTED, 1, 2, 3, 4, 5), attr(0x7002), attr(0, 1))
	out = append(out, unknown...)
	for len(b) > 0 {
		n, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		value := b[4:n]
		if typ&unix.NLA_F_NESTED != 0 {
			value = withUnknown(value)
		}
		out = append(out, attr(typ, value...)...)
		out = append(out, unknown...)
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}

// TestTruncated asserts that a golden message that is cut off at any byte is an
// error, unless whole attributes are left.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, file := range goldenFiles(t) {
		r := readRecord(t, file)
		k := kindOf(r.Type)
		m := r.message(t)
		whole := m.Data
		boundaries := map[int]bool{}
		for at := sizeofNfgenmsg; at < len(whole); {
			boundaries[at] = true
			n := int(binary.NativeEndian.Uint16(whole[at:]))
			for end := at + n; end <= at+(n+3)&^3; end++ {
				boundaries[end] = true // with and without padding
			}
			at += (n + 3) &^ 3
		}
		for n := range whole {
			m.Data = whole[:n:n]
			_, err := k.decode(m)
			if boundaries[n] {
				require.NoError(t, err, "%s: %d bytes", file, n)
			} else {
				require.ErrorIs(t, err, nfnl.ErrMalformed, "%s: %d bytes", file, n)
			}
		}
	}
}

// TestKnownLayouts asserts that the fast path for the kernel's usual layout
// gives the same result as the walk over attributes. An unknown attribute
// forces the latter.
func TestKnownLayouts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for name, test := range map[string]struct {
		bytes  func() []byte
		decode func([]byte) (any, error)
		zero   any
	}{
		"IPv4": {
			func() []byte { return join(attr(ctaIPv4Src, random(4)...), attr(ctaIPv4Dst, random(4)...)) },
			func(b []byte) (any, error) { var v IPTuple; err := v.unmarshal(b); return v, err }, IPTuple{},
		},
		"IPv6": {
			func() []byte { return join(attr(ctaIPv6Src, random(16)...), attr(ctaIPv6Dst, random(16)...)) },
			func(b []byte) (any, error) { var v IPTuple; err := v.unmarshal(b); return v, err }, IPTuple{},
		},
		"ports": {
			func() []byte {
				return join(attr(ctaProtoNum, random(1)...), attr(ctaProtoSrcPort, random(2)...), attr(ctaProtoDstPort, random(2)...))
			},
			func(b []byte) (any, error) { var v ProtoTuple; err := v.unmarshal(b); return v, err }, ProtoTuple{},
		},
		"TCP": {
			func() []byte {
				return join(attr(ctaProtoInfoTCPState, random(1)...),
					attr(ctaProtoInfoTCPWScaleOriginal, random(1)...), attr(ctaProtoInfoTCPWScaleReply, random(1)...),
					attr(ctaProtoInfoTCPFlagsOriginal, random(2)...), attr(ctaProtoInfoTCPFlagsReply, random(2)...))
			},
			func(b []byte) (any, error) { var v ProtoInfoTCP; err := v.unmarshal(b); return v, err }, ProtoInfoTCP{},
		},
		"counter": {
			func() []byte {
				return join(attr(ctaCountersPackets, random(8)...), attr(ctaCountersBytes, random(8)...))
			},
			func(b []byte) (any, error) { var v Counter; err := v.unmarshal(b); return v, err }, Counter{},
		},
		"SYN proxy": {
			func() []byte {
				return join(attr(ctaSynProxyISN, random(4)...), attr(ctaSynProxyITS, random(4)...), attr(ctaSynProxyTSOff, random(4)...))
			},
			func(b []byte) (any, error) { var v SynProxy; err := v.unmarshal(b); return v, err }, SynProxy{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 1000 {
				b := test.bytes()
				quick, err := test.decode(b)
				require.NoError(t, err)
				require.NotEqual(t, test.zero, quick)
				walked, err := test.decode(append(attr(999), b...))
				require.NoError(t, err)
				require.Equal(t, walked, quick)
			}
		})
	}
}

// TestKnownLayoutAddresses asserts the same for addresses, which have a fast
// path for each family.
func TestKnownLayoutAddresses(t *testing.T) {
	var ip IPTuple
	require.NoError(t, ip.unmarshal(append(attr(ctaIPv4Src, 1, 2, 3, 4), attr(ctaIPv4Dst, 5, 6, 7, 8)...)))
	require.Equal(t, IPTuple{netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("5.6.7.8")}, ip)
}

// seed adds the attributes of golden messages of the given types.
func seed(f *testing.F, types ...string) {
	f.Helper()
	for _, file := range goldenFiles(f) {
		if r := readRecord(f, file); slices.Contains(types, r.Type) {
			f.Add(r.message(f).Data[sizeofNfgenmsg:])
		}
	}
}

// TestDecodeHook asserts that a hook is known by the name of its function, if it has
// one.
func TestDecodeHook(t *testing.T) {
	tests := []struct {
		name   string
		encode func(*nfnl.Encoder)
		want   string
	}{
		{"named", func(e *nfnl.Encoder) {
			e.Uint32(1, 0)
			e.String(4, "ipv4_conntrack_in")
			e.String(5, "nf_conntrack")
		}, "ipv4_conntrack_in"},
		{"nameless", func(e *nfnl.Encoder) { e.Uint32(1, 0) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e nfnl.Encoder
			e.Message(nfnl.Header{})
			tt.encode(&e)
			got, err := decodeHook(encoded(&e))
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
	_, err := decodeHook([]byte{200, 0, 200, 0})
	require.ErrorIs(t, err, nfnl.ErrMalformed)
}

// requireOwn decodes b. It asserts that the result shares memory neither with b
// nor with other decoded values, or that the error says that b is malformed. In
// the latter case, it returns nil.
func requireOwn[T any](t *testing.T, b []byte, decode func(v *T, b []byte, s *slab) error) *T {
	t.Helper()
	var want T
	if err := decode(&want, b, nil); err != nil {
		require.ErrorIs(t, err, nfnl.ErrMalformed)
		return nil
	}
	require.LessOrEqual(t, owned(reflect.ValueOf(want)), len(b))

	var before, v, after T
	input := bytes.Clone(b)
	s := new(slab)
	for _, v := range []*T{&before, &v, &after} {
		require.NoError(t, decode(v, input, s))
		require.Equal(t, &want, v)
	}
	clear(input)
	overwrite(reflect.ValueOf(&before).Elem())
	overwrite(reflect.ValueOf(&after).Elem())
	require.Equal(t, want, v)
	return &want
}

// overwrite overwrites all memory that v points to.
func overwrite(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[[]byte]():
		b := v.Bytes()
		for i := range b[:cap(b)] {
			b[:cap(b)][i]++
		}
	case isOurs(v.Type()):
		for i := range v.NumField() {
			overwrite(v.Field(i))
		}
	case v.Kind() == reflect.Pointer && isOurs(v.Type().Elem()) && !v.IsNil():
		overwrite(v.Elem())
		v.Elem().SetZero()
	}
}

// isOurs reports whether t is a struct of this package.
func isOurs(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[Flow]().PkgPath()
}

// owned returns the size of the strings and byte slices in v.
func owned(v reflect.Value) (n int) {
	switch {
	case v.Kind() == reflect.String, v.Kind() == reflect.Slice:
		return v.Len()
	case isOurs(v.Type()):
		for i := range v.NumField() {
			n += owned(v.Field(i))
		}
	case v.Kind() == reflect.Pointer && isOurs(v.Type().Elem()) && !v.IsNil():
		return owned(v.Elem())
	}
	return n
}

// encoded returns the attributes of the only message in e.
func encoded(e *nfnl.Encoder) []byte {
	const header = 20 // includes struct nfgenmsg
	return bytes.Clone(reflect.ValueOf(e).Elem().FieldByName("buf").Bytes()[header:])
}

func FuzzFlow(f *testing.F) {
	seed(f, "*conntrack.Flow", "*conntrack.Event")
	for _, field := range flowFields {
		f.Add(nested(field.types, make([]byte, field.size)))
	}
	decode := func(f *Flow, b []byte, s *slab) error { return f.unmarshal(b, s) }
	f.Fuzz(func(t *testing.T, b []byte) {
		flow := requireOwn(t, b, decode)
		if flow == nil {
			return
		}
		_ = flow.describe()
		once := encodeFlow(flow)
		if once == nil {
			return
		}
		var again Flow
		require.NoError(t, decode(&again, once, nil))
		require.Equal(t, once, encodeFlow(&again))
	})
}

// encodeFlow returns the message that creates flow, or nil if it cannot be
// created.
func encodeFlow(flow *Flow) []byte {
	if _, err := flow.family(); err != nil {
		return nil
	}
	var e nfnl.Encoder
	e.Message(nfnl.Header{})
	if flow.marshalNew(&e) != nil || e.Err() != nil {
		return nil
	}
	return encoded(&e)
}

func FuzzExpect(f *testing.F) {
	seed(f, "*conntrack.Expect", "*conntrack.Event")
	for _, field := range expectFields {
		f.Add(nested(field.types, make([]byte, field.size)))
	}
	decode := func(ex *Expect, b []byte, s *slab) error { return ex.unmarshal(b, s) }
	f.Fuzz(func(t *testing.T, b []byte) {
		ex := requireOwn(t, b, decode)
		if ex == nil {
			return
		}
		_ = ex.describe()
		once := encodeExpect(ex)
		if once == nil {
			return
		}
		var again Expect
		require.NoError(t, decode(&again, once, nil))
		require.Equal(t, once, encodeExpect(&again))
	})
}

func encodeExpect(ex *Expect) []byte {
	if _, err := ex.family(); err != nil {
		return nil
	}
	var e nfnl.Encoder
	e.Message(nfnl.Header{})
	ex.marshal(&e)
	if e.Err() != nil {
		return nil
	}
	return encoded(&e)
}

func FuzzEvent(f *testing.F) {
	for _, file := range goldenFiles(f) {
		m := readRecord(f, file)
		message := m.message(f)
		f.Add(uint16(message.Header.Type), uint16(message.Header.Flags), message.Data)
	}
	f.Fuzz(func(t *testing.T, typ, flags uint16, b []byte) {
		header := netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.HeaderFlags(flags)}
		input := bytes.Clone(b)
		var got, want Event
		err := got.Unmarshal(netlink.Message{Header: header, Data: input})
		if err != nil {
			require.True(t, errors.Is(err, nfnl.ErrMalformed) || errors.Is(err, ErrUnknownEvent), "%v", err)
			return
		}
		require.True(t, (got.Flow == nil) != (got.Expect == nil))
		_ = got.String()
		clear(input)
		require.NoError(t, want.Unmarshal(netlink.Message{Header: header, Data: b}))
		require.Equal(t, want, got)
	})
}

func FuzzStats(f *testing.F) {
	seed(f, "*conntrack.Stats", "*conntrack.StatsExpect", "*conntrack.StatsGlobal")
	f.Fuzz(func(t *testing.T, b []byte) {
		requireOwn(t, b, func(s *Stats, b []byte, _ *slab) error { return s.unmarshal(b) })
		requireOwn(t, b, func(s *StatsExpect, b []byte, _ *slab) error { return s.unmarshal(b) })
		requireOwn(t, b, func(s *StatsGlobal, b []byte, _ *slab) error { return s.unmarshal(b) })
	})
}

// TestGoldenEncoding asserts that a decoded flow or expectation that is encoded
// and decoded again stays the same, except for what only the kernel sets.
func TestGoldenEncoding(t *testing.T) {
	t.Parallel()
	for _, file := range goldenFiles(t) {
		r := readRecord(t, file)
		v, err := kindOf(r.Type).decode(r.message(t))
		require.NoError(t, err)
		if e, ok := v.(*Event); ok && e.Flow != nil {
			v = e.Flow
		} else if ok {
			v = e.Expect
		}
		switch want := v.(type) {
		case *Flow:
			var got Flow
			require.NoError(t, got.unmarshal(encodeFlow(want), nil))
			want.ID, want.Use, want.Timestamp = 0, 0, Timestamp{}
			if want.TupleMaster.filled() {
				want.Status.Value &^= StatusExpected
			}
			want.CountersOrig, want.CountersReply = Counter{}, Counter{}
			want.CountedZero = false
			if tcp := want.ProtoInfo.TCP; tcp != nil {
				for _, flags := range []*uint16{&tcp.OriginalFlags, &tcp.ReplyFlags} {
					if *flags != 0 {
						*flags |= 0xff
					}
				}
			}
			if nat, reply := want.translated(); nat != (NAT{}) {
				want.NAT, want.TupleReply = &nat, reply
			}
			if want.SeqAdjReply == (SequenceAdjust{Direction: true}) {
				want.SeqAdjReply.Direction = false
			}
			require.Equal(t, want, &got, file)
		case *Expect:
			var got Expect
			require.NoError(t, got.unmarshal(encodeExpect(want), nil))
			want.ID = 0
			require.Equal(t, want, &got, file)
		}
	}
}
