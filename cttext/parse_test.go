package cttext_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
)

// plain is the zero Options.
var plain cttext.Options

// TestUnknownStates asserts that states without a name print as NONE, like in
// conntrack(8).
func TestUnknownStates(t *testing.T) {
	t.Parallel()
	for protocol, info := range map[uint8]conntrack.ProtoInfo{
		conntrack.ProtocolTCP:  {TCP: &conntrack.ProtoInfoTCP{State: 200}},
		conntrack.ProtocolSCTP: {SCTP: &conntrack.ProtoInfoSCTP{State: 10}},
		conntrack.ProtocolDCCP: {DCCP: &conntrack.ProtoInfoDCCP{State: 10, Role: 2}},
	} {
		a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		f := conntrack.NewFlow(protocol, conntrack.StatusConfirmed, a, b, 1, 2, 10, 0)
		f.ProtoInfo = info
		require.Contains(t, plain.Flow(&f), " 10 NONE src=")
		require.Contains(t, cttext.Options{Save: true}.Flow(&f), "--state (null)")
	}
	// libnetfilter_conntrack prints the state of one protocol in flows of
	// another.
	f := conntrack.Flow{ProtoInfo: conntrack.ProtoInfo{TCP: &conntrack.ProtoInfoTCP{State: conntrack.TCPStateEstablished}}}
	f.TupleOrig.Proto.Protocol = conntrack.ProtocolUDP
	require.Contains(t, plain.Flow(&f), "udp      17 0 ESTABLISHED ")
}

// TestParseFlowErrors asserts that an error says which word is wrong.
func TestParseFlowErrors(t *testing.T) {
	t.Parallel()
	const udp = "udp      17 30 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 "
	const reply = "src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 "
	const saved = "-A -t 30 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -p udp --sport 1 --dport 2 "
	for line, want := range map[string]string{
		"":         "addresses and ports of the original direction are not complete",
		"   ":      "addresses and ports of the original direction are not complete",
		"garbage":  "number of a protocol is missing",
		"[NEW]":    "addresses and ports of the original direction are not complete",
		"udp 6 30": `word 2, "6": "udp" is not the name of protocol 6`,
		"17 17 30": `word 2, "17": "17" is not the name of protocol 17`,
		"udp x":    `word 2, "x": no protocol: not a number`,
		"udp 256":  `word 2, "256": no protocol: not a number of 8 bits`,
		"ipv4 10":  `word 2, "10": no family: ipv4 is 2`,
		"[1] x":    `word 1, "[1]": no time`,

		"udp 17 30 src=1.1.1.1":                                         "addresses and ports of the original direction are not complete",
		"udp 17 30 src=1.1.1.1 dst=2.2.2.2 sport=1":                     "addresses and ports of the original direction are not complete",
		"icmp 1 30 src=1.1.1.1 dst=2.2.2.2 type=8 code=0":               "addresses and ports of the original direction are not complete",
		udp + "src=2.2.2.2 dst=1.1.1.1 sport=1":                         "addresses and ports of the reply direction are not complete",
		udp + "zone-reply=1":                                            "addresses and ports of the reply direction are not complete",
		udp + "packets=1":                                               "packets= and bytes= go together",
		udp + reply + "src=2.2.2.2":                                     `word 12, "src=2.2.2.2": there already`,
		udp + reply + "mark=1 mark=1":                                   `word 13, "mark=1": there already`,
		udp + reply + "[ASSURED] [OFFLOAD]":                             `word 13, "[OFFLOAD]": there already`,
		udp + "[UNREPLIED] [UNREPLIED]":                                 `word 9, "[UNREPLIED]": there already`,
		udp + reply + "mark=x":                                          `word 12, "mark=x": not a number`,
		udp + reply + "mark=4294967296":                                 `word 12, "mark=4294967296": not a number of 32 bits`,
		udp + reply + "mark=":                                           `word 12, "mark=": not a number`,
		udp + reply + "mark=-1":                                         `word 12, "mark=-1": not a number`,
		udp + reply + "zone=65536":                                      `word 12, "zone=65536": not a number of 16 bits`,
		udp + reply + "secmark=9":                                       `word 12, "secmark=9": unknown word`,
		udp + reply + "[WHATEVER]":                                      `word 12, "[WHATEVER]": unknown word`,
		udp + reply + "whatever":                                        `word 12, "whatever": unknown word`,
		udp + reply + "helper=":                                         `word 12, "helper=": empty`,
		udp + reply + "labels=one":                                      `word 12, "labels=one": Options.Labels is needed to read the names of labels`,
		udp + reply + "[start=Sat Aug 32 09:00:00 2025]":                `word 12, "[start=Sat Aug 32 09:00:00 2025]": no time`,
		udp + reply + "[start=Sat":                                      `word 12, "[start=Sat": no ] behind it`,
		udp + reply + "[USERSPACE]":                                     "portid= expected behind it",
		udp + reply + "[USERSPACE] portid=x":                            `word 13, "portid=x": not a number`,
		udp + reply + "[USERSPACE] portid=1 x":                          `word 14, "x": unknown word`,
		udp + "src=::1":                                                 `word 8, "src=::1": IPv4 and IPv6 in one line`,
		"ipv6 10 " + udp:                                                `word 6, "src=1.1.1.1": IPv4 and IPv6 in one line`,
		"udp 17 30 src=1.1.1.256":                                       `word 4, "src=1.1.1.256": no address`,
		"udp 17 30 src=fe80::1%lo":                                      `word 4, "src=fe80::1%lo": no address`,
		"udp 17 30 srckey=0x1":                                          `word 4, "srckey=0x1": unknown word`,
		"udp 17 30 ESTABLISHED src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2": `word 4, "ESTABLISHED": no state of that protocol`,
		"tcp 6 30 OPEN src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2":         `word 4, "OPEN": no state of that protocol`,
		"300 proto=17 src=1.1.1.1":                                      `word 2, "proto=17": no protocol`,

		saved + "--sport 3":                         `word 16, "--sport": there already`,
		saved + "--sport":                           `word 16, "--sport": there already`,
		saved + "whatever":                          `word 16, "whatever": unknown word`,
		saved + "-D":                                `word 16, "-D": a second command`,
		saved + "--icmp-type 8":                     `word 16, "--icmp-type": no option of conntrack(8) about flows, or not of that protocol`,
		saved + "--state ESTABLISHED":               `word 16, "--state": no option of conntrack(8) about flows, or not of that protocol`,
		saved + "-r ::1":                            `word 16, "-r ::1": IPv4 and IPv6 in one line`,
		saved + "--reply-port-src 65536":            `word 16, "--reply-port-src 65536": not a number of 16 bits`,
		"-A -s 1.1.1.1 -d 2.2.2.2":                  "addresses and ports of the original direction are not complete",
		"-A -u WHATEVER":                            `word 2, "-u WHATEVER": unknown status flag`,
		"-A -p whatever":                            `word 2, "-p whatever": unknown protocol`,
		"-A -s 1.1.1.1 -d 2.2.2.2 -p udp --sport 1": "addresses and ports of the original direction are not complete",
		"[1.2.3] x":                                 `word 1, "[1.2.3]": no time`,
		"[253402300800.0] " + udp:                   `word 1, "[253402300800.0]": a time out of the years 0 to 9999`,
		"[-62167219201.0] " + udp:                   `a time out of the years 0 to 9999`,
		udp + "delta-time=99999999999":              "a time out of the years 0 to 9999",
		"[NEW] " + saved:                            "a command, and not what was printed",
		"-I" + saved[2:]:                            "a command, and not what was printed",
		"conntrack " + saved:                        `word 2, "-A": no protocol`,
		saved + "-m 7":                              `word 16, "-m": no option that -o save prints`,
		saved + "--whatever 7":                      `word 16, "--whatever": no option of conntrack(8) about flows`,
		saved + "-g [3.3.3.3]":                      `word 16, "-g [3.3.3.3]": no port`,
		saved + "-t":                                `word 16, "-t": there already`,
		"-A -s 1.1.1.1 -d 2.2.2.2 -p udp":           "addresses and ports of the original direction are not complete",
		"-A -s 1.1.1.1 -d 2.2.2.2 -p 99":            "",
		"-A -s 1.1.1.1/8 -d 2.2.2.2 -p 99":          "--mask-src does not go with -A",
		"-A -s 1.1.1.1 -d 2.2.2.2 -p 99 -f":         `"-f": no option that -o save prints`,
	} {
		f, err := plain.ParseFlow(line)
		if want == "" {
			require.NoError(t, err, line)
			continue
		}
		require.ErrorContains(t, err, want, line)
		require.ErrorContains(t, err, "cttext: parse flow: ", line)
		require.Zero(t, f)
	}
	_, err := cttext.Options{Labels: textLabels}.ParseFlow(udp + reply + "labels=zero,one")
	require.ErrorContains(t, err, `word 12, "labels=zero,one": unknown label`)
	_, err = cttext.Options{Labels: textLabels}.ParseFlow(udp + reply + "labels=zero,zero")
	require.ErrorContains(t, err, "there already")
}

func TestParseExpectAndEventErrors(t *testing.T) {
	t.Parallel()
	line := conntrackExpects[0]
	for text, want := range map[string]string{
		"":                           "the addresses and ports are not complete",
		"300":                        "the addresses and ports are not complete",
		"300 src=1.1.1.1":            `word 2, "src=1.1.1.1": proto= expected`,
		"300 proto=256":              `word 2, "proto=256": not a number of 8 bits`,
		"300 proto=6 src=1.1.1.1":    "the addresses and ports are not complete",
		"99999999999 proto=6":        `word 1, "99999999999": not a number of 32 bits`,
		line + " class=0":            `word 17, "class=0": there already`,
		line + " whatever=0":         `word 17, "whatever=0": unknown word`,
		line + " TEMPORARY":          `word 17, "TEMPORARY": unknown word`,
		line + " INACTIVE PERMANENT": `word 18, "PERMANENT": there already`,
		strings.Replace(line, "dport=21", "dstkey=21", 1): `word 14, "dstkey=21": unknown word`,
		line + " mask-src=255.255.255.255":                `word 17, "mask-src=255.255.255.255": there already`,
	} {
		_, err := plain.ParseExpect(text)
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, "cttext: parse expectation: ", text)
	}
	for text, want := range map[string]string{
		"":                               "addresses and ports of the original direction are not complete",
		line:                             "no event",
		"[UPDATE] " + line:               "no event",
		conntrackLines[0].line:           "no event",
		"[NEW] 300 proto=6":              "the addresses and ports are not complete",
		"[NEW] " + line + " x=":          `word 18, "x=": unknown word`,
		"[x] " + line:                    `word 2`,
		"-G -s 1.1.1.1 -d 2.2.2.2 -p 99": "a command, and not what was printed",
	} {
		e, err := plain.ParseEvent(text)
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, "cttext: parse event: ", text)
		require.Zero(t, e)
	}
	require.Empty(t, cttext.Options{Timestamp: true}.Event(&conntrack.Event{Type: conntrack.EventNew}))
}

// TestParseProc asserts what is read from a line of /proc/net/nf_conntrack.
func TestParseProc(t *testing.T) {
	t.Parallel()
	f, err := plain.ParseFlow("ipv4     2 tcp      6 431999 ESTABLISHED src=192.0.2.1 dst=192.0.2.2 sport=40000 dport=443 packets=3 bytes=180 " +
		"src=192.0.2.2 dst=198.51.100.1 sport=443 dport=50000 packets=2 bytes=112 [ASSURED] mark=0 zone=0 use=2\n")
	require.NoError(t, err)
	require.EqualValues(t, 431999, f.Timeout)
	require.Equal(t, conntrack.StatusConfirmed|conntrack.StatusSeenReply|conntrack.StatusAssured|
		conntrack.StatusSrcNAT|conntrack.StatusNATDoneMask, f.Status.Value)
	require.Equal(t, conntrack.Counter{Packets: 3, Bytes: 180}, f.CountersOrig)
	require.Equal(t, conntrack.Counter{Direction: true, Packets: 2, Bytes: 112}, f.CountersReply)
}

// TestParseProcGRE asserts that the words that only GRE has in
// /proc/net/nf_conntrack are accepted.
func TestParseProcGRE(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"ipv4     2 gre      47 100 timeout=30, stream_timeout=180 src=192.0.2.9 dst=192.0.2.1 srckey=0x0 dstkey=0xbeef " +
			"[UNREPLIED] src=192.0.2.1 dst=192.0.2.9 srckey=0xbeef dstkey=0x0 mark=0 zone=0 use=2": "gre      47 100 src=192.0.2.9 dst=192.0.2.1 srckey=0x0 dstkey=0xbeef " +
			"[UNREPLIED] src=192.0.2.1 dst=192.0.2.9 srckey=0xbeef dstkey=0x0 mark=0 use=2",
		"ipv6     10 udp      17 29 src=fe80:0000:0000:0000:0000:0000:0000:0001 dst=0000:0000:0000:0000:0000:0000:0000:0001 sport=1 dport=2 " +
			"src=0000:0000:0000:0000:0000:0000:0000:0001 dst=fe80:0000:0000:0000:0000:0000:0000:0001 sport=2 dport=1 [ASSURED] mark=0 use=1": "udp      17 29 src=fe80::1 dst=::1 sport=1 dport=2 src=::1 dst=fe80::1 sport=2 dport=1 [ASSURED] mark=0 use=1",
	} {
		f, err := plain.ParseFlow(line)
		require.NoError(t, err)
		require.Equal(t, want, plain.Flow(&f))
	}
	_, err := plain.ParseFlow("udp 17 29 timeout=30, src=192.0.2.9 dst=192.0.2.1 sport=1 dport=2")
	require.ErrorContains(t, err, "timeout=30,")
}

// TestParseDelta asserts that a line with only an age is dated back from now,
// or from the time of the event.
func TestParseDelta(t *testing.T) {
	t.Parallel()
	const flow = "udp 17 30 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 delta-time=90"
	o := cttext.Options{Now: printedAt}
	f, err := o.ParseFlow(flow)
	require.NoError(t, err)
	require.True(t, f.Timestamp.Start.Equal(printedAt.Add(-90*time.Second)))
	require.Zero(t, f.Timestamp.Stop)

	e, err := o.ParseEvent("[1000.000007]\t[DESTROY] " + flow)
	require.NoError(t, err)
	require.True(t, e.Time.Equal(time.Unix(1000, 7000)))
	require.True(t, e.Flow.Timestamp.Start.Equal(time.Unix(910, 0)))
	require.True(t, e.Flow.Timestamp.Stop.Equal(time.Unix(1000, 0)))
}

// TestParsedTimesAreJSON asserts that any time read from a line can be written
// as JSON.
func TestParsedTimesAreJSON(t *testing.T) {
	t.Parallel()
	const udp = "udp 17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 "
	for _, line := range []string{
		udp + "delta-time=%d", "[DESTROY] " + udp + "delta-time=%d", "[%d.000000] [NEW] " + udp, "[-%d.000000] [DESTROY] " + udp + "delta-time=1",
	} {
		for shift := range 64 {
			e, err := plain.ParseEvent(fmt.Sprintf("[NEW] "+line, uint64(1)<<shift))
			if err != nil {
				e, err = plain.ParseEvent(fmt.Sprintf(line, uint64(1)<<shift))
			}
			if err != nil {
				continue
			}
			for _, at := range []time.Time{e.Time, e.Flow.Timestamp.Start, e.Flow.Timestamp.Stop} {
				_, err := at.UTC().MarshalJSON()
				require.NoError(t, err, line)
			}
		}
	}
	zone := time.FixedZone("east", 3600)
	_, err := cttext.Options{Location: zone}.ParseFlow(udp + "[start=Sat Jan  1 00:00:00 0000]")
	require.ErrorContains(t, err, "years 0 to 9999")
}

// TestIncomplete asserts that incomplete tuples print no words.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	var f conntrack.Flow
	require.Equal(t, "unknown  0 0 [UNREPLIED] mark=0", plain.Flow(&f))
	require.Equal(t, "unknown  0 0 [UNREPLIED] mark=0", cttext.Options{Extended: true, ID: true, KTimestamp: true}.Flow(&f))
	require.Equal(t, "-A -t 0 -u UNSET -p 0", cttext.Options{Save: true}.Flow(&f))

	ex := conntrack.Expect{HelpName: "ftp"}
	ex.Tuple.IP.SourceAddress = netip.MustParseAddr("192.0.2.1")
	require.Equal(t, "0 proto=0 class=0 helper=ftp", plain.Expect(&ex))
}

// TestMaskWithoutProtocol asserts that a mask without a protocol prints like
// one with it.
func TestMaskWithoutProtocol(t *testing.T) {
	t.Parallel()
	ex, err := plain.ParseExpect(conntrackExpects[0])
	require.NoError(t, err)
	ex.Mask.Proto.Protocol = 0
	require.Equal(t, conntrackExpects[0], plain.Expect(&ex))
}

// TestParseStrange asserts that unusual lines are read or refused, and cause no
// panic.
func TestParseStrange(t *testing.T) {
	t.Parallel()
	const udp = "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 "
	const flow = udp + "src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 [ASSURED] mark=0 use=1"
	many := make(cttext.LabelNames, 200)
	many[130] = "x"
	for name, tt := range map[string]struct {
		o    cttext.Options
		line string
		err  string
	}{
		"label past the last": {cttext.Options{Labels: many}, flow + " labels=x", "unknown label"},
		"reply incomplete":    {plain, udp + "src=2.2.2.2 dst=1.1.1.1 sport=2", "reply direction"},
		"two lines":           {plain, flow + " [USERSPACE] portid=5 progname=foo\n" + flow, "more than one line"},
		"a helper with a NUL": {plain, flow + " helper=ftp\x00", "control character"},
		"a very long word":    {plain, flow + " " + strings.Repeat("x", 1<<20), "unknown word"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tt.o.ParseFlow(tt.line)
			require.ErrorContains(t, err, tt.err)
			require.Less(t, len(err.Error()), 300)
		})
	}
	_, err := cttext.Options{Labels: many}.ParseCommand("-U -p udp -s 1.1.1.1 -d 2.2.2.2 --sport 1 --dport 2 --label-add x")
	require.ErrorContains(t, err, "unknown label")

	// What the kernel does not track has no ports in /proc.
	for _, protocol := range []uint8{conntrack.ProtocolDCCP, conntrack.ProtocolUDPLite} {
		f, err := plain.ParseFlow(fmt.Sprintf("ipv4     2 unknown  %d 99 src=10.0.0.1 dst=10.0.0.2 packets=0 bytes=0 [UNREPLIED] "+
			"src=10.0.0.2 dst=10.0.0.1 packets=0 bytes=0 mark=0 zone=0 delta-time=0 use=2", protocol))
		require.NoError(t, err)
		require.Equal(t, protocol, f.TupleReply.Proto.Protocol)
	}
}

// TestHugeWords asserts that for a line with a huge word, the error is short
// and little memory is used.
func TestHugeWords(t *testing.T) {
	const size = 1 << 17
	for name, huge := range map[string]string{
		"letters": strings.Repeat("x", size), "digits": strings.Repeat("9", size), "commas": strings.Repeat(",", size),
		"names": strings.Repeat("zero,", size/5), "words": strings.Repeat("mark=1 ", size/7), "quotes": strings.Repeat(`"a"`, size/3),
		"not UTF-8": strings.Repeat("\xff", size), "flags": strings.Repeat("ASSURED,", size/8) + "X", "brackets": strings.Repeat("[", size),
	} {
		for _, before := range []string{
			"", "udp ", huge[:9] + " ", "ipv4 ", "[", "[1.", "[NEW] ", "tcp 6 9 ", "tcp 6 9 ESTABLISHED",
			"tcp 6 9 ESTABLISHED src=", "tcp 6 9 ESTABLISHED labels=", "tcp 6 9 ESTABLISHED [start=", "tcp 6 9 mark=", "tcp 6 9 secctx=",
			"tcp 6 9 [USERSPACE] portid=", "9 proto=", "9 proto=6 ", "9 proto=6 helper=",
			"-", "-A -", "-A -u ", "-A -p ", "-A -t ", "-A -s ", "-A -g ", "-D -m ", "-D -m 5/", "-D -f ", "-D -l ", "-U --label-add ", "-A --",
			"-I -p tcp --state ", "-I -p tcp --sport ", `-D -l "`,
		} {
			var start, end runtime.MemStats
			runtime.ReadMemStats(&start)
			o := cttext.Options{Labels: textLabels}
			line := before + huge
			_, flow := o.ParseFlow(line)
			_, expect := o.ParseExpect(line)
			_, event := o.ParseEvent(line)
			_, command := o.ParseCommand(line)
			runtime.ReadMemStats(&end)
			for _, err := range []error{flow, expect, event, command} {
				if err != nil {
					require.Less(t, len(err.Error()), 1200, "%s%s", before, name)
				}
			}
			require.Less(t, end.TotalAlloc-start.TotalAlloc, uint64(8*size+1<<16), "%s%s", before, name)
		}
	}
}

// TestRoundTrip asserts that a printed flow parses to the same flow.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	o := cttext.Options{Extended: true, ID: true, KTimestamp: true, Labels: textLabels, Now: printedAt, Location: time.UTC}
	for range 5000 {
		f := randomFlow(r)
		line := o.Flow(&f)
		got, err := o.ParseFlow(line)
		require.NoError(t, err, line)
		require.Equal(t, f, got, line)

		e := conntrack.Event{Type: conntrack.EventNew, Flow: &f, Time: time.Unix(r.Int64N(1<<32), 1000*r.Int64N(1e6)), PortID: r.Uint32N(2)}
		e.ZeroMark = f.Mark == 0 && r.IntN(2) == 0
		o := o
		o.Timestamp = true
		line = o.Event(&e)
		gotEvent, err := o.ParseEvent(line)
		require.NoError(t, err, line)
		require.Equal(t, e, gotEvent, line)

		saved := savedPart(f)
		line = cttext.Options{Save: true}.Flow(&saved)
		got, err = o.ParseFlow(line)
		require.NoError(t, err, line)
		require.Equal(t, saved, got, line)
	}
}

// randomFlow returns a flow with only what a line shows.
func randomFlow(r *rand.Rand) (f conntrack.Flow) {
	protocols := []uint8{1, 6, 17, 33, 47, 58, 132, 136, 2, 200}
	f.TupleOrig.Proto.Protocol = protocols[r.IntN(len(protocols))]
	p := &f.TupleOrig.Proto
	switch p.Protocol {
	case conntrack.ProtocolICMP, conntrack.ProtocolICMPv6:
		p.ICMPv4, p.ICMPv6 = p.Protocol == conntrack.ProtocolICMP, p.Protocol == conntrack.ProtocolICMPv6
		p.ICMPID, p.ICMPType, p.ICMPCode = uint16(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32())
	case 2, 200:
	default:
		p.SourcePort, p.DestinationPort = uint16(r.Uint32()), uint16(r.Uint32())
	}
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + r.IntN(3))}) }
	if r.IntN(2) == 0 {
		addr = func() netip.Addr {
			return netip.AddrFrom16([16]byte{0: byte(r.IntN(3)), 7: 9, 15: byte(1 + r.IntN(3))})
		}
	}
	f.TupleOrig.IP = conntrack.IPTuple{SourceAddress: addr(), DestinationAddress: addr()}
	f.TupleReply = f.TupleOrig.Reverse()
	if r.IntN(2) == 0 {
		f.TupleReply.IP.SourceAddress = addr()
	}
	if r.IntN(2) == 0 {
		f.TupleReply.IP.DestinationAddress = addr()
	}
	f.Timeout = 1 + r.Uint32N(9)
	f.Status.Value = conntrack.StatusConfirmed
	for _, flag := range []conntrack.StatusFlag{conntrack.StatusSeenReply, conntrack.StatusAssured} {
		if r.IntN(2) == 0 {
			f.Status.Value |= flag
		}
	}
	if f.SourceTranslated() {
		f.Status.Value |= conntrack.StatusSrcNAT | conntrack.StatusNATDoneMask
	}
	if f.DestinationTranslated() {
		f.Status.Value |= conntrack.StatusDstNAT | conntrack.StatusNATDoneMask
	}
	const liberal = conntrack.TCPFlagBeLiberal << 8
	switch p.Protocol {
	case conntrack.ProtocolTCP:
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: uint8(r.IntN(10)), OriginalFlags: liberal, ReplyFlags: liberal}
	case conntrack.ProtocolSCTP:
		f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: uint8(r.IntN(10))}
	case conntrack.ProtocolDCCP:
		f.ProtoInfo.DCCP = &conntrack.ProtoInfoDCCP{State: uint8(r.IntN(10))}
	}
	f.ID, f.Use, f.Mark, f.Zone = r.Uint32(), 1+r.Uint32N(3), r.Uint32N(3), uint16(r.Uint32N(3))
	f.TupleOrig.Zone, f.TupleReply.Zone = uint16(r.Uint32N(3)), uint16(r.Uint32N(3))
	if r.IntN(2) == 0 {
		f.CountersOrig = conntrack.Counter{Packets: r.Uint64N(3), Bytes: r.Uint64()}
		f.CountersReply = conntrack.Counter{Direction: true, Packets: r.Uint64N(3)}
	}
	if r.IntN(2) == 0 {
		f.Helper.Name, f.SecurityContext = "ftp", "system_u:object_r:x"
	}
	if r.IntN(2) == 0 {
		f.Timestamp.Start = time.Unix(r.Int64N(1<<33), 0).UTC()
		f.Timestamp.Stop = f.Timestamp.Start.Add(time.Duration(r.IntN(5)-2) * time.Second)
	}
	for _, bit := range []int{0, 14, 127} {
		if r.IntN(3) == 0 {
			f.SetLabel(bit)
		}
	}
	f.LabelsMask = nil
	return f
}

// savedPart returns the part of f that -o save shows.
func savedPart(f conntrack.Flow) conntrack.Flow {
	saved := conntrack.Flow{
		Timeout: f.Timeout, Status: f.Status, Zone: f.Zone, ProtoInfo: f.ProtoInfo,
		TupleOrig: f.TupleOrig, TupleReply: f.TupleReply,
	}
	// ICMP only has options for the original direction.
	if p := &saved.TupleReply.Proto; p.ICMPv4 || p.ICMPv6 {
		*p = saved.TupleOrig.Reverse().Proto
	}
	// Later states have no names in -o save: they are read as the first of
	// them.
	if p := saved.ProtoInfo.SCTP; p != nil && p.State > conntrack.SCTPStateHeartbeatSent {
		saved.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: conntrack.SCTPStateHeartbeatSent}
	}
	return saved
}

func BenchmarkFlow(b *testing.B) {
	f, err := plain.ParseFlow(conntrackLines[1].line)
	require.NoError(b, err)
	for name, o := range map[string]cttext.Options{"plain": {}, "save": {Save: true}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = o.Flow(&f)
			}
		})
	}
}

func BenchmarkAppendFlow(b *testing.B) {
	f, err := plain.ParseFlow(conntrackLines[1].line)
	require.NoError(b, err)
	b.ReportAllocs()
	var line []byte
	for b.Loop() {
		line = plain.AppendFlow(line[:0], &f)
	}
}

func BenchmarkParseFlow(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := plain.ParseFlow(conntrackLines[1].line); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseCommand(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := plain.ParseCommand("-D -s 192.0.2.1 -d 192.0.2.0/24 -p tcp --dport 443 -m 1/0xff"); err != nil {
			b.Fatal(err)
		}
	}
}
