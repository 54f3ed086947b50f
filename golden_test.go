//go:build linux

package conntrack

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"golang.org/x/sys/unix"
)

// See testdata/README.md.
var (
	captureFlag = flag.Bool("capture", false, "capture the golden messages from the running kernel")
	updateFlag  = flag.Bool("update", false, "write the values that the golden messages decode to")
)

// captureVariable is set where the files that -capture writes are lost: it
// captures and prints them.
const captureVariable = "CONNTRACK_TEST_CAPTURE"

// A record is a file of testdata: a message that a kernel sent, and what it
// decodes to.
type record struct {
	Kernel    string          `json:"kernel"`
	About     string          `json:"about"`
	ByteOrder string          `json:"byteOrder"`
	Message   string          `json:"message"`
	Type      string          `json:"type"`
	Value     json.RawMessage `json:"value"`
}

// TestGolden decodes each message and compares what comes out with the value
// that stands beside it, and with what the golden knows of the traffic that the
// message is about.
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

// message returns the message as this machine's kernel would have sent it.
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

// swapMessage turns the netlink header and the headers of all attributes from
// one byte order into the other. What attributes hold is in network byte order
// on every machine.
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

// valueJSON returns what v points to as JSON, without fields that are zero.
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
		return v.Uint() // also where the type has names
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

// A kind is what a message is about.
type kind struct {
	// request asks the kernel for such messages; nil for events.
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

// The ends of the connections that the goldens are about.
var (
	client4 = netip.MustParseAddrPort("127.0.0.2:40000")
	server4 = netip.MustParseAddrPort("127.0.0.1:8080")
	other4  = netip.MustParseAddrPort("127.0.0.100:9090")
	client6 = netip.MustParseAddrPort("[fd00::1]:40000")
	server6 = netip.MustParseAddrPort("[::1]:8080")
	other6  = netip.MustParseAddrPort("[::1]:9090")
)

const replied = StatusSeenReply | StatusConfirmed

// States of the kernel's enum tcp_conntrack and enum sctp_conntrack.
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

// checkEvent checks the type of an event, and the flow or expectation.
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

// ends returns the Tuple of a protocol with ports.
func ends(proto uint8, src, dst netip.AddrPort) Tuple {
	return Tuple{
		IP:    IPTuple{SourceAddress: src.Addr(), DestinationAddress: dst.Addr()},
		Proto: ProtoTuple{Protocol: proto, SourcePort: src.Port(), DestinationPort: dst.Port()},
	}
}

// requireEnds requires that f goes from src to dst and back the same way.
func requireEnds(t *testing.T, f *Flow, proto uint8, src, dst netip.AddrPort) {
	t.Helper()
	require.Equal(t, ends(proto, src, dst), f.TupleOrig)
	require.Equal(t, ends(proto, dst, src), f.TupleReply)
}

// requireAcct requires counters and a time of beginning.
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
