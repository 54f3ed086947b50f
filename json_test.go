//go:build linux

package conntrack

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/netfilter"
)

// addr and at construct values for tests.
var (
	addr = netip.MustParseAddr
	at   = func(s string) time.Time {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			panic(err)
		}
		return t.Local()
	}
)

// jsonSamples have texts that must not change: readers rely on the names in
// them.
var jsonSamples = []struct {
	name  string
	value any
	text  string
}{
	{"nothing", Flow{}, `{}`},
	{"TCP", Flow{
		ID:        312989414,
		Status:    Status{StatusSeenReply | StatusAssured | StatusConfirmed | 1<<20},
		Timeout:   431999,
		Timestamp: Timestamp{Start: at("2026-11-23T05:52:34.62622685Z"), Stop: at("2026-11-23T05:52:35Z")},
		ProtoInfo: ProtoInfo{TCP: &ProtoInfoTCP{
			State:               TCPStateEstablished,
			OriginalWindowScale: 7, ReplyWindowScale: 8,
			OriginalFlags: TCPFlags(TCPFlagWindowScale|TCPFlagSACKPerm, 0),
			ReplyFlags:    TCPFlags(TCPFlagBeLiberal, 0xff),
		}},
		TupleOrig:    ends(ProtocolTCP, client4, server4),
		TupleReply:   ends(ProtocolTCP, other4, client4),
		CountersOrig: Counter{Packets: 3, Bytes: 164}, CountersReply: Counter{Direction: true, Packets: 1, Bytes: 60},
		SeqAdjOrig:  SequenceAdjust{Position: 42, OffsetBefore: 80, OffsetAfter: 747811},
		SeqAdjReply: SequenceAdjust{Direction: true},
		Helper:      Helper{Name: "ftp", Info: []byte{0xab, 1}},
		Zone:        7, Mark: 0xff00, MarkMask: 0xffff, Use: 1,
		Labels: []byte{1, 0, 0, 0}, LabelsMask: []byte{0xff, 0, 0, 0},
		SecurityContext: `system_u:object_r:"x"_t:s0`,
		SynProxy:        SynProxy{ISN: 1, ITS: 2, TSOff: 3},
	}, `{"id":312989414,"status":["SEEN_REPLY","ASSURED","CONFIRMED",1048576],"timeout":431999,` +
		`"start":"2026-11-23T05:52:34.62622685Z","stop":"2026-11-23T05:52:35Z",` +
		`"tcp":{"state":"ESTABLISHED","orig_window_scale":7,"reply_window_scale":8,` +
		`"orig_flags":["WINDOW_SCALE","SACK_PERM"],"reply_flags":["BE_LIBERAL"],` +
		`"reply_flags_mask":["WINDOW_SCALE","SACK_PERM","CLOSE_INIT","BE_LIBERAL","DATA_UNACKNOWLEDGED",` +
		`"MAXACK_SET","CHALLENGE_ACK","SIMULTANEOUS_OPEN"]},` +
		`"orig":{"protocol":"tcp","src":"127.0.0.2","sport":40000,"dst":"127.0.0.1","dport":8080,"packets":3,"bytes":164,` +
		`"seq_adj":{"position":42,"offset_before":80,"offset_after":747811}},` +
		`"reply":{"protocol":"tcp","src":"127.0.0.100","sport":9090,"dst":"127.0.0.2","dport":40000,"packets":1,"bytes":60,` +
		`"seq_adj":{}},` +
		`"zone":7,"mark":65280,"mark_mask":65535,"labels":"01000000","labels_mask":"ff000000",` +
		`"helper":"ftp","helper_info":"ab01","security_context":"system_u:object_r:\"x\"_t:s0",` +
		`"syn_proxy":{"isn":1,"its":2,"tsoff":3},"use":1}`},
	{"no states, no ports, zones", Flow{
		ProtoInfo:  ProtoInfo{TCP: new(ProtoInfoTCP), SCTP: &ProtoInfoSCTP{State: 200, VTagOriginal: 1, VTagReply: 2}, DCCP: new(ProtoInfoDCCP)},
		TupleOrig:  Tuple{Proto: ProtoTuple{Protocol: ProtocolTCP}, Zone: 1},
		TupleReply: Tuple{Proto: ProtoTuple{Protocol: 253}, Zone: 2},
	}, `{"tcp":{"state":"NONE"},"dccp":{"state":"NONE","role":"client"},"sctp":{"state":200,"orig_vtag":1,"reply_vtag":2},` +
		`"orig":{"protocol":"tcp","zone":1},"reply":{"protocol":253,"zone":2}}`},
	{"ICMP, of the kernel", Flow{
		TupleOrig:  Tuple{Proto: ProtoTuple{Protocol: ProtocolICMP, ICMPv4: true, ICMPType: 8, ICMPID: 1}},
		TupleReply: Tuple{Proto: ProtoTuple{Protocol: ProtocolICMPv6, ICMPv6: true}},
	}, `{"orig":{"protocol":"icmp","icmp":{"type":8,"code":0,"id":1}},"reply":{"protocol":"ipv6-icmp","icmp":{"type":0,"code":0,"id":0}}}`},
	{"ICMP, of a program", Flow{
		TupleOrig:   Tuple{Proto: ProtoTuple{Protocol: ProtocolICMP}},
		TupleReply:  Tuple{Proto: ProtoTuple{ICMPv6: true}},
		TupleMaster: Tuple{IP: IPTuple{SourceAddress: addr("::ffff:1.2.3.4"), DestinationAddress: addr("fe80::1%eth0")}},
	}, `{"orig":{"protocol":"icmp","icmp":{"type":0,"code":0,"id":0,"v4":false}},` +
		`"reply":{"icmp":{"type":0,"code":0,"id":0,"v6":true}},"master":{"src":"::ffff:1.2.3.4","dst":"fe80::1%eth0"}}`},
	{"nothing counted yet", Flow{CountedZero: true, CountersReply: Counter{Direction: true}},
		`{"orig":{"packets":0,"bytes":0},"reply":{"packets":0,"bytes":0}}`},
	{"no reply counted yet", Flow{CountersOrig: Counter{Packets: 1, Bytes: 28}, CountersReply: Counter{Direction: true}},
		`{"orig":{"packets":1,"bytes":28},"reply":{"packets":0,"bytes":0}}`},
	{"directions of their own", Flow{
		CountersOrig: Counter{Direction: true}, CountersReply: Counter{Packets: 1},
		SeqAdjOrig: SequenceAdjust{Direction: true}, SeqAdjReply: SequenceAdjust{Position: 1},
	}, `{"orig":{"packets":0,"bytes":0,"counter_direction":"reply","seq_adj":{"direction":"reply"}},` +
		`"reply":{"packets":1,"bytes":0,"counter_direction":"orig","seq_adj":{"position":1,"direction":"orig"}}}`},
	{"NAT", Flow{NAT: &NAT{
		Source:      NATRange{MinAddr: addr("192.0.2.1"), MaxAddr: addr("192.0.2.9"), MinPort: 1024, MaxPort: 2048},
		Destination: NATTo(netip.MustParseAddrPort("192.0.2.10:80")),
	}}, `{"nat":{"source":{"min_addr":"192.0.2.1","max_addr":"192.0.2.9","min_port":1024,"max_port":2048},` +
		`"destination":{"min_addr":"192.0.2.10","min_port":80}}}`},
	{"NAT to nothing", Flow{NAT: new(NAT)}, `{"nat":{}}`},
	{"expectation", Expect{
		ID: 1, Timeout: 2, Zone: 3, HelpName: "ftp", Function: "nat-follow-master",
		Flags: ExpectPermanent | ExpectInactive | 8, Class: 4,
		TupleMaster: ends(ProtocolTCP, client4, server4),
		Tuple:       ends(ProtocolUDP, client6, server6),
		Mask:        Tuple{Proto: ProtoTuple{Protocol: ProtocolUDP, DestinationPort: 0xffff}},
		NAT:         ExpectNAT{Direction: true, Tuple: Tuple{Proto: ProtoTuple{SourcePort: 5}}},
	}, `{"id":1,"timeout":2,"master":{"protocol":"tcp","src":"127.0.0.2","sport":40000,"dst":"127.0.0.1","dport":8080},` +
		`"tuple":{"protocol":"udp","src":"fd00::1","sport":40000,"dst":"::1","dport":8080},` +
		`"mask":{"protocol":"udp","dport":65535},"zone":3,"helper":"ftp","function":"nat-follow-master",` +
		`"flags":["PERMANENT","INACTIVE",8],"class":4,"nat":{"direction":"reply","tuple":{"sport":5}}}`},
	{"expectation with NAT in the original direction", Expect{NAT: ExpectNAT{Tuple: Tuple{Zone: 1}}},
		`{"nat":{"direction":"orig","tuple":{"zone":1}}}`},
	{"event of a flow", Event{
		Type: EventUpdate, Time: at("2026-11-23T05:52:34.123456789Z"), NSID: NSID{id: 0, other: true},
		PortID: 4711, Flow: &Flow{ID: 1}, ZeroMark: true,
	}, `{"type":"update","time":"2026-11-23T05:52:34.123456789Z","nsid":0,"port_id":4711,"flow":{"id":1,"mark":0}}`},
	{"event of an expectation", Event{Type: EventExpDestroy, Expect: new(Expect)}, `{"type":"expect_destroy","expect":{}}`},
	{"event of nothing", Event{}, `{"type":"unknown"}`},
	{"event of an unknown type", Event{Type: 99, NSID: NSID{id: 5, other: true}}, `{"type":99,"nsid":5}`},
}

func TestJSONSamples(t *testing.T) {
	t.Parallel()
	for _, s := range jsonSamples {
		t.Run(s.name, func(t *testing.T) {
			b, err := json.Marshal(s.value)
			require.NoError(t, err)
			require.Equal(t, s.text, string(b))
			requireSame(t, s.value)
		})
	}
}

// requireSame asserts that v is the same after it was encoded as JSON and
// decoded.
func requireSame(t testing.TB, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	again := reflect.New(reflect.TypeOf(v))
	require.NoError(t, json.Unmarshal(b, again.Interface()), "%s", b)
	require.Equal(t, v, again.Elem().Interface(), "%s", b)
}

// TestJSONEachField asserts that every field is encoded, including fields that
// are added later.
func TestJSONEachField(t *testing.T) {
	t.Parallel()
	eachField(t, func() Flow { return Flow{} })
	eachField(t, func() Expect { return Expect{} })
	eachField(t, func() Event { return Event{Flow: &Flow{ID: 123456789}} })
}

func eachField[T any](t *testing.T, newValue func() T) {
	r := rand.New(rand.NewPCG(1, 2))
	all := setters(reflect.TypeFor[T]())
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(reflect.TypeFor[T]().Name()+"."+name, func(t *testing.T) {
			v := newValue()
			all[name](reflect.ValueOf(&v).Elem(), r)
			require.NotEqual(t, newValue(), v)
			requireSame(t, v)
		})
	}
}

// TestJSONAnyValue asserts that any flow is the same after it was encoded and
// decoded.
func TestJSONAnyValue(t *testing.T) {
	t.Parallel()
	anyValues(t, (*Flow).settle)
	anyValues(t, func(*Expect) {})
	anyValues(t, func(e *Event) {
		if e.Flow != nil {
			e.Flow.settle()
		}
		e.ZeroMark = e.ZeroMark && e.Flow != nil && e.Flow.Mark == 0
	})
}

func anyValues[T any](t *testing.T, settle func(*T)) {
	r := rand.New(rand.NewPCG(3, 4))
	all := setters(reflect.TypeFor[T]())
	for range 2000 {
		var v T
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if r.IntN(3) == 0 {
				all[name](reflect.ValueOf(&v).Elem(), r)
			}
		}
		settle(&v)
		requireSame(t, v)
	}
}

// settle clears CountedZero if the counters already show that f is counted.
func (f *Flow) settle() {
	f.CountedZero = f.CountedZero && !f.CountersOrig.filled() && !f.CountersReply.filled()
}

// A setter sets a field of a struct to a value that is not zero.
type setter = func(v reflect.Value, r *rand.Rand)

// setters returns a setter for each field of a struct type, including the
// fields of structs that it contains or points to.
func setters(t reflect.Type) map[string]setter {
	all := make(map[string]setter)
	for i := range t.NumField() {
		name, typ := t.Field(i).Name, t.Field(i).Type
		inner := typ
		if typ.Kind() == reflect.Pointer {
			inner = typ.Elem()
		}
		whole := !isOurs(inner) || typ == reflect.TypeFor[NSID]()
		if whole || inner != typ {
			all[name] = func(v reflect.Value, r *rand.Rand) { settable(v.Field(i)).Set(anyOf(typ, r)) }
		}
		if whole {
			continue
		}
		for of, set := range setters(inner) {
			all[name+"."+of] = func(v reflect.Value, r *rand.Rand) {
				f := settable(v.Field(i))
				if inner != typ && f.IsNil() {
					f.Set(reflect.New(inner))
				}
				set(reflect.Indirect(f), r)
			}
		}
	}
	return all
}

// settable returns v in a form that can be set, even if it is an unexported
// field.
func settable(v reflect.Value) reflect.Value {
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}

// anyOf returns a random value of type t that is not zero.
func anyOf(t reflect.Type, r *rand.Rand) reflect.Value {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		a := netip.AddrFrom4([4]byte{1 + byte(r.Uint32()), 2, 3, 4})
		if r.IntN(2) == 0 {
			a = netip.AddrFrom16([16]byte{0xfd, byte(r.Uint32()), 15: byte(r.Uint32())})
		}
		return reflect.ValueOf(a)
	case reflect.TypeFor[time.Time]():
		return reflect.ValueOf(time.Unix(0, int64(r.Uint64())))
	case reflect.TypeFor[NSID]():
		return reflect.ValueOf(NSID{id: r.IntN(1000), other: true})
	case reflect.TypeFor[[]byte]():
		return reflect.ValueOf([]byte{0, byte(r.Uint32())})
	}
	v := reflect.New(t).Elem()
	switch t.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(fmt.Sprintf("\"<%c>\\", rune(r.IntN(0xd800))))
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
	default:
		v.SetUint(max(1, r.Uint64()>>(64-t.Bits())>>r.IntN(t.Bits())))
	}
	return v
}

// TestJSONGolden asserts that messages from kernels are the same after they
// were encoded and decoded.
func TestJSONGolden(t *testing.T) {
	t.Parallel()
	for _, file := range goldenFiles(t) {
		r := readRecord(t, file)
		v, err := kindOf(r.Type).decode(r.message(t))
		require.NoError(t, err)
		requireSame(t, reflect.ValueOf(v).Elem().Interface())
	}
}

// TestJSONTable asserts the same for the table and the events of the running
// kernel, with the traffic of all goldens.
func TestJSONTable(t *testing.T) {
	t.Parallel()
	running, err := release.Running()
	require.NoError(t, err)
	for _, g := range goldens {
		if g.traffic == nil || g.until != (release.Release{}) && !running.Less(g.until) {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			n := nstest.New(t, g.opts...)
			c, err := Dial(n.Config())
			require.NoError(t, err)
			defer c.Close()
			events := make(chan Event, 1024)
			_, err = c.Listen(events, 1, slices.Concat(netfilter.GroupsCT, netfilter.GroupsCTExp))
			require.NoError(t, err)

			g.traffic(t, n)

			flows, err := c.Dump(nil)
			require.NoError(t, err)
			requireSame(t, flows)
			expects, err := c.DumpExpect()
			require.NoError(t, err)
			requireSame(t, expects)
			for wait := 5 * time.Second; ; wait = 0 {
				select {
				case e := <-events:
					requireSame(t, e)
					continue
				case <-time.After(wait):
				}
				require.Zero(t, wait, "no event")
				break
			}
		})
	}
}

func TestJSONIgnoresWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	f := Flow{Use: 1}
	require.NoError(t, json.Unmarshal([]byte(`{
		"id": 1, "colour": "red", "status": null, "timeout": null, "start": null, "tcp": null, "labels": null,
		"orig": {"protocol": "TCP", "shape": {"round": true}, "src": null, "seq_adj": null},
		"reply": null, "nat": null, "helper": "", "stop": "0001-01-01T01:00:00+01:00", "labels_mask": ""
	}`), &f))
	require.Equal(t, Flow{ID: 1, TupleOrig: Tuple{Proto: ProtoTuple{Protocol: ProtocolTCP}}}, f)

	require.NoError(t, json.Unmarshal([]byte(`{
		"status": [ "seen_reply" ,"\u0041SSURED",8, "0x10" ], "tcp": {"state": "\u0045STABLISHED", "orig_flags": [ ]},
		"orig": {"protocol": "icmpv6"}, "reply": {"protocol": 58}
	}`), &f))
	require.Equal(t, Flow{
		Status:     Status{StatusSeenReply | StatusAssured | StatusConfirmed | StatusSrcNAT},
		ProtoInfo:  ProtoInfo{TCP: &ProtoInfoTCP{State: TCPStateEstablished}},
		TupleOrig:  Tuple{Proto: ProtoTuple{Protocol: ProtocolICMPv6, ICMPv6: true}},
		TupleReply: Tuple{Proto: ProtoTuple{Protocol: ProtocolICMPv6, ICMPv6: true}},
	}, f)

	f.ID = 1
	require.NoError(t, json.Unmarshal([]byte(`null`), &f))
	require.EqualValues(t, 1, f.ID)
	require.NoError(t, f.UnmarshalJSON([]byte(` null `)))
	require.EqualValues(t, 1, f.ID)
}

func TestJSONErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ text, err string }{
		{`{"id": "x"}`, `JSON field id is "x": want a whole number from 0 to 4294967295`},
		{`{"id": -1}`, `JSON field id is -1: want a whole number from 0 to 4294967295`},
		{`{"id": 1.5}`, `JSON field id is 1.5: want a whole number from 0 to 4294967295`},
		{`{"orig": {"sport": 65536}}`, `JSON field orig.sport is 65536: want a whole number from 0 to 65535`},
		{`{"orig": 5}`, `JSON field orig is 5: want an object`},
		{`{"tcp": []}`, `JSON field tcp is []: want an object`},
		{`{"reply": {"protocol": "foo"}}`, `JSON field reply.protocol is "foo": unknown protocol "foo"`},
		{`{"reply": {"protocol": 256}}`, `JSON field reply.protocol is 256: unknown protocol "256"`},
		{`{"orig": {"src": "1.2.3"}}`, `JSON field orig.src is "1.2.3": ParseAddr("1.2.3"): IPv4 address too short`},
		{`{"orig": {"icmp": {"v4": 1}}}`, `JSON field orig.icmp.v4 is 1: want true or false`},
		{`{"orig": {"seq_adj": {"direction": "back"}}}`, `JSON field orig.seq_adj.direction is "back": want "orig" or "reply"`},
		{`{"start": "today"}`, `JSON field start is "today": parsing time "today" as "2006-01-02T15:04:05Z07:00": cannot parse "today" as "2006"`},
		{`{"status": "ASSURED"}`, `JSON field status is "ASSURED": want a list of flags`},
		{`{"status": ["ASSURED", "SURE"]}`, `JSON field status is ["ASSURED", "SURE"]: unknown status flag " SURE"`},
		{`{"tcp": {"orig_flags": [256]}}`, `JSON field tcp.orig_flags is [256]: unknown TCP flag "256"`},
		{`{"tcp": {"state": "OPEN"}}`, `JSON field tcp.state is "OPEN": unknown TCP state "OPEN"`},
		{`{"labels": "0g"}`, `JSON field labels is "0g": encoding/hex: invalid byte: U+0067 'g'`},
		{`{"labels": 5}`, `JSON field labels is 5: want text`},
		{`{"security_context": "` + strings.Repeat("x", 50) + `", "nat": "` + strings.Repeat("x", 1000) + `"}`,
			`JSON field nat is "` + strings.Repeat("x", 59) + `: want an object`},
		{`{"nat": {"source": {"min_addr": 5}}}`, `JSON field nat.source.min_addr is 5: want text`},
		{`{"dccp": {"handshake_seq": -1}}`, `JSON field dccp.handshake_seq is -1: want a whole number from 0 to 18446744073709551615`},
		{`{"orig": {"counter_direction": true}}`, `JSON field orig.counter_direction is true: want text`},
		{`{"helper": true}`, `JSON field helper is true: want text`},
		{`{"status": {"Value": 6}}`, `JSON field status is {"Value": 6}: want a list of flags`},
		{`{"Status": [[]]}`, `JSON field Status is [[]]: unknown status flag "[]"`},
		{`{"reply": {"protocol": {}}}`, `JSON field reply.protocol is {}: unknown protocol "{}"`},
		{`{"id": "x", "use": "y"}`, `JSON field id is "x": want a whole number from 0 to 4294967295`},
	} {
		f := Flow{ID: 7}
		require.EqualError(t, json.Unmarshal([]byte(test.text), &f), "conntrack: "+test.err)
		require.Equal(t, Flow{ID: 7}, f)
	}
	for _, text := range []string{
		`{"orig": {"src": "%s"}}`, `{"stop": "%s"}`, `{"id": 1%s}`, `{"labels": "x%s"}`, `{"status": ["x%s"]}`, `{"tcp": {"state": 1%s}}`, `1%s`,
	} {
		err := json.Unmarshal([]byte(fmt.Sprintf(text, strings.Repeat("0", 1<<20))), new(Flow))
		require.Error(t, err)
		require.Less(t, len(err.Error()), 400, text)
	}
	var e Event
	require.EqualError(t, json.Unmarshal([]byte(`{"flow": {"orig": {"dport": true}}}`), &e),
		"conntrack: JSON field flow.orig.dport is true: want a whole number from 0 to 65535")
	require.EqualError(t, json.Unmarshal([]byte(`{"type": "old"}`), &e),
		`conntrack: JSON field type is "old": unknown event type "old"`)
	require.ErrorContains(t, json.Unmarshal([]byte(`[]`), &e), "conntrack: json: cannot unmarshal array")
	require.Error(t, e.UnmarshalJSON([]byte(`{`)))

	_, err := json.Marshal(Flow{Timestamp: Timestamp{Stop: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}})
	require.ErrorContains(t, err, "year outside of range [0,9999]")
}

// TestJSONOfV050 asserts that the JSON that v0.5.0 wrote, with the field names
// of encoding/json, is not mistaken for a flow without fields.
func TestJSONOfV050(t *testing.T) {
	t.Parallel()
	const (
		times    = `"Timestamp":{"Start":"0001-01-01T00:00:00Z","Stop":"0001-01-01T00:00:00Z"}`
		tuple    = `{"IP":{"SourceAddress":"","DestinationAddress":""},"Proto":{"Protocol":0,"SourcePort":0,"DestinationPort":0,"ICMPv4":false,"ICMPv6":false,"ICMPID":0,"ICMPType":0,"ICMPCode":0},"Zone":0}`
		counters = `"CountersOrig":{"Direction":false,"Packets":0,"Bytes":0},"CountersReply":{"Direction":false,"Packets":0,"Bytes":0}`
		adjusts  = `"SeqAdjOrig":{"Direction":false,"Position":0,"OffsetBefore":0,"OffsetAfter":0},"SeqAdjReply":{"Direction":false,"Position":0,"OffsetBefore":0,"OffsetAfter":0}`
		flow     = `{"ID":0,"Timeout":0,` + times + `,"Status":{"Value":0},"ProtoInfo":{"TCP":null,"DCCP":null,"SCTP":null},"Helper":{"Name":"","Info":null},"Zone":0,` +
			counters + `,"SecurityContext":"","TupleOrig":` + tuple + `,"TupleReply":` + tuple + `,"TupleMaster":` + tuple + `,` + adjusts +
			`,"Labels":null,"LabelsMask":null,"Mark":0,"Use":0,"SynProxy":{"ISN":0,"ITS":0,"TSOff":0}}`
		expect = `{"ID":0,"Timeout":0,"TupleMaster":` + tuple + `,"Tuple":` + tuple + `,"Mask":` + tuple +
			`,"Zone":0,"HelpName":"","Function":"","Flags":0,"Class":0,"NAT":{"Direction":false,"Tuple":` + tuple + `}}`
	)
	require.EqualError(t, json.Unmarshal([]byte(flow), new(Flow)),
		`conntrack: JSON field Status is {"Value":0}: want a list of flags`)
	require.EqualError(t, json.Unmarshal([]byte(expect), new(Expect)),
		`conntrack: JSON field Flags is 0: want a list of flags`)
	require.EqualError(t, json.Unmarshal([]byte(`{"Type":1,"Flow":`+flow+`,"Expect":null}`), new(Event)),
		`conntrack: JSON field Flow.Status is {"Value":0}: want a list of flags`)
	require.EqualError(t, json.Unmarshal([]byte(`{"Type":4,"Flow":null,"Expect":`+expect+`}`), new(Event)),
		`conntrack: JSON field Expect.Flags is 0: want a list of flags`)

	var e Event
	require.NoError(t, json.Unmarshal([]byte(`{"Type":3,"Flow":null,"Expect":null}`), &e))
	require.Equal(t, Event{Type: EventDestroy}, e)
}

// TestJSONReadsOnly asserts, with the race detector, that encoding a value does
// not modify what it points to.
func TestJSONReadsOnly(t *testing.T) {
	t.Parallel()
	for _, s := range jsonSamples {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				b, err := json.Marshal(s.value)
				assert.NoError(t, err)
				assert.Equal(t, s.text, string(b))
			})
		}
		wg.Wait()
	}
}

// FuzzJSON asserts that any JSON that can be decoded is the same after it was
// encoded and decoded again.
func FuzzJSON(f *testing.F) {
	for _, s := range jsonSamples {
		f.Add([]byte(s.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzJSON[Flow](t, b)
		fuzzJSON[Expect](t, b)
		fuzzJSON[Event](t, b)
	})
}

func fuzzJSON[T any](t *testing.T, b []byte) {
	var v T
	if json.Unmarshal(b, &v) == nil {
		requireSame(t, v)
	}
}

func BenchmarkJSON(b *testing.B) {
	v, err := flowKind.decode(newestGolden(b, "flow-tcp-ipv4"))
	require.NoError(b, err)
	tcp := *v.(*Flow)
	tcp.Timestamp.Start = time.Unix(1763877154, 626226850)
	tcp.CountersOrig = Counter{Packets: 3, Bytes: 164}
	tcp.CountersReply = Counter{Direction: true, Packets: 2, Bytes: 112}
	benchmarkJSON(b, "tcp", tcp)
	benchmarkJSON(b, "every field", jsonSamples[1].value.(Flow))
}

func benchmarkJSON(b *testing.B, name string, f Flow) {
	text, err := f.MarshalJSON()
	require.NoError(b, err)
	var read Flow
	for _, method := range []struct {
		name string
		call func() error
	}{
		{"MarshalJSON", func() error { _, err := f.MarshalJSON(); return err }},
		{"json.Marshal", func() error { _, err := json.Marshal(&f); return err }},
		{"UnmarshalJSON", func() error { return read.UnmarshalJSON(text) }},
		{"json.Unmarshal", func() error { return json.Unmarshal(text, &read) }},
	} {
		b.Run(name+"/"+method.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := method.call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// logged returns the output of a slog handler for v, without the time.
func logged(v any, handler func(*bytes.Buffer, *slog.HandlerOptions) slog.Handler) string {
	var b bytes.Buffer
	slog.New(handler(&b, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key != "v" {
				return slog.Attr{}
			}
			return a
		},
	})).Info("", "v", v)
	return strings.TrimSpace(b.String())
}

func loggedText(v any) string {
	return logged(v, func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(b, o) })
}

func loggedJSON(v any) string {
	return logged(v, func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(b, o) })
}

func TestLog(t *testing.T) {
	t.Parallel()
	same := NewFlow(ProtocolUDP, StatusSeenReply, client4.Addr(), server4.Addr(), 40000, 53, 30, 0xff)
	nat := Flow{
		Status:    Status{StatusAssured | 1<<20},
		Timestamp: Timestamp{Start: at("2026-11-23T05:52:34.5Z"), Stop: at("2026-11-23T05:52:35Z")},
		ProtoInfo: ProtoInfo{TCP: &ProtoInfoTCP{State: TCPStateEstablished}},
		TupleOrig: ends(ProtocolTCP, client4, server4), TupleReply: ends(ProtocolTCP, other4, client4),
		CountersOrig: Counter{Packets: 3, Bytes: 164}, CountersReply: Counter{Direction: true},
		Zone: 7, Helper: Helper{Name: "ftp"}, ID: 1, Use: 1,
	}
	echo := Tuple{Proto: ProtoTuple{Protocol: ProtocolICMP, ICMPv4: true, ICMPType: 8, ICMPID: 1}, Zone: 5}
	expect := Expect{
		ID: 1, Timeout: 2, Zone: 3, HelpName: "ftp", Flags: ExpectPermanent,
		TupleMaster: ends(ProtocolTCP, client4, server4), Tuple: ends(253, client6, server6),
	}
	for _, test := range []struct {
		name string
		v    any
		text string
		json string
	}{
		{"nothing", Flow{}, ``, `{}`},
		{"not translated", same,
			`v.status=[SEEN_REPLY] v.timeout=30 v.orig.protocol=udp v.orig.src=127.0.0.2 v.orig.sport=40000 v.orig.dst=127.0.0.1 v.orig.dport=53 v.mark=255`,
			`{"v":{"status":["SEEN_REPLY"],"timeout":30,"orig":{"protocol":"udp","src":"127.0.0.2","sport":40000,"dst":"127.0.0.1","dport":53},"mark":255}}`},
		{"translated", nat,
			`v.id=1 v.status="[ASSURED 1048576]" v.start=2026-11-23T05:52:34.500Z v.stop=2026-11-23T05:52:35.000Z v.tcp.state=ESTABLISHED ` +
				`v.orig.protocol=tcp v.orig.src=127.0.0.2 v.orig.sport=40000 v.orig.dst=127.0.0.1 v.orig.dport=8080 v.orig.packets=3 v.orig.bytes=164 ` +
				`v.reply.protocol=tcp v.reply.src=127.0.0.100 v.reply.sport=9090 v.reply.dst=127.0.0.2 v.reply.dport=40000 v.reply.packets=0 v.reply.bytes=0 ` +
				`v.zone=7 v.helper=ftp`,
			`{"v":{"id":1,"status":["ASSURED",1048576],"start":"2026-11-23T05:52:34.5Z","stop":"2026-11-23T05:52:35Z","tcp":{"state":"ESTABLISHED"},` +
				`"orig":{"protocol":"tcp","src":"127.0.0.2","sport":40000,"dst":"127.0.0.1","dport":8080,"packets":3,"bytes":164},` +
				`"reply":{"protocol":"tcp","src":"127.0.0.100","sport":9090,"dst":"127.0.0.2","dport":40000,"packets":0,"bytes":0},` +
				`"zone":7,"helper":"ftp"}}`},
		{"ICMP", Flow{TupleOrig: echo, TupleReply: echo.Reverse()},
			`v.orig.protocol=icmp v.orig.icmp.type=8 v.orig.icmp.code=0 v.orig.icmp.id=1 v.orig.zone=5`,
			`{"v":{"orig":{"protocol":"icmp","icmp":{"type":8,"code":0,"id":1},"zone":5}}}`},
		{"SCTP", Flow{ProtoInfo: ProtoInfo{SCTP: new(ProtoInfoSCTP)}}, `v.sctp.state=NONE`, `{"v":{"sctp":{"state":"NONE"}}}`},
		{"DCCP", Flow{ProtoInfo: ProtoInfo{DCCP: &ProtoInfoDCCP{State: 99}}}, `v.dccp.state=99`, `{"v":{"dccp":{"state":99}}}`},
		{"expectation", expect,
			`v.id=1 v.timeout=2 v.master.protocol=tcp v.master.src=127.0.0.2 v.master.sport=40000 v.master.dst=127.0.0.1 v.master.dport=8080 ` +
				`v.tuple.protocol=253 v.tuple.src=fd00::1 v.tuple.sport=40000 v.tuple.dst=::1 v.tuple.dport=8080 v.zone=3 v.helper=ftp v.flags=[PERMANENT]`,
			`{"v":{"id":1,"timeout":2,"master":{"protocol":"tcp","src":"127.0.0.2","sport":40000,"dst":"127.0.0.1","dport":8080},` +
				`"tuple":{"protocol":253,"src":"fd00::1","sport":40000,"dst":"::1","dport":8080},"zone":3,"helper":"ftp","flags":["PERMANENT"]}}`},
		{"pointer", &Flow{ID: 5}, `v.id=5`, `{"v":{"id":5}}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.text, loggedText(test.v))
			require.Equal(t, test.json, loggedJSON(test.v))
		})
	}
}

// TestLogNil asserts that logging a nil Flow does not panic.
func TestLogNil(t *testing.T) {
	t.Parallel()
	require.NotPanics(t, func() { loggedText((*Flow)(nil)) })
	require.NotPanics(t, func() { loggedJSON((*Expect)(nil)) })
}

// TestLogEvent asserts that an event is logged as its String in text, and as
// its JSON in JSON.
func TestLogEvent(t *testing.T) {
	t.Parallel()
	e := Event{Type: EventDestroy, Flow: &Flow{Mark: 1}, NSID: NSID{other: true}, PortID: 9}
	const eventJSON = `{"v":{"type":"destroy","nsid":0,"port_id":9,"flow":{"mark":1}}}`
	for _, v := range []any{e, &e} {
		require.Equal(t, "v="+strconv.Quote(e.String()), loggedText(v))
		require.JSONEq(t, eventJSON, loggedJSON(v))
		require.Equal(t, e.String(), fmt.Sprint(v))
		require.NotImplements(t, (*slog.LogValuer)(nil), v)
		require.NotImplements(t, (*encoding.TextMarshaler)(nil), v)
	}
}

// TestLogNamesAreThoseOfJSON asserts that everything that is logged of a value
// is also in its JSON, under the same names.
func TestLogNamesAreThoseOfJSON(t *testing.T) {
	t.Parallel()
	var values []any
	for _, s := range jsonSamples {
		if v, ok := s.value.(slog.LogValuer); ok {
			values = append(values, v)
		}
	}
	for _, file := range goldenFiles(t) {
		r := readRecord(t, file)
		v, err := kindOf(r.Type).decode(r.message(t))
		require.NoError(t, err)
		if _, ok := v.(slog.LogValuer); ok {
			values = append(values, v)
		}
	}
	for _, v := range values {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		var log struct{ V map[string]any }
		require.NoError(t, json.Unmarshal([]byte(loggedJSON(v)), &log))
		var whole map[string]any
		require.NoError(t, json.Unmarshal(b, &whole))
		requireWithin(t, whole, log.V)
	}
}

// requireWithin asserts that whole contains all of part.
func requireWithin(t *testing.T, whole, part map[string]any) {
	t.Helper()
	for name, v := range part {
		if fields, ok := v.(map[string]any); ok {
			require.IsType(t, fields, whole[name], name)
			requireWithin(t, whole[name].(map[string]any), fields)
			continue
		}
		require.True(t, reflect.DeepEqual(whole[name], v), "%s: %v in JSON, %v in the log", name, whole[name], v)
	}
}
