//go:build linux

package conntrack

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// logged returns what a handler of slog writes of v, without the time.
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

// TestLogNil asserts that a program survives a nil Flow in its log.
func TestLogNil(t *testing.T) {
	t.Parallel()
	require.NotPanics(t, func() { loggedText((*Flow)(nil)) })
	require.NotPanics(t, func() { loggedJSON((*Expect)(nil)) })
}

// TestLogEvent asserts that an event is logged as its String, and as its JSON in
// JSON.
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

// TestLogNamesAreThoseOfJSON asserts that what is logged of a value is in its
// JSON too, under the same names.
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

// requireWithin asserts that all that part has is in whole.
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
