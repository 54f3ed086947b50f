//go:build linux

package conntrack_test

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// The tests of this file hold this package against conntrack(8), both ways: what
// the one does the other must see, in each field. A flow of this package is put
// into the words of conntrack(8) in three formats, and these are compared:
//
//	-o xml            addresses, ports, keys, zones, counters, state, timeout,
//	                  mark, labels, use, id, times, helper
//	-o extended,id    the same but the times, and ICMP types, codes and ids
//	-o save           status flags, SCTP tags, NAT
//
// These are conntrack 1.4.7's own shortcomings, and what is done about them:
//
//	-o xml
//	  ICMP              no type, code, id: compared in the other formats
//	  SCTP, DCCP        the state has the name of the TCP state with its number
//	  expectations      no id, function, NAT or zone
//	  <when>            seconds, local time, weekday from 1 for Sunday
//	  -L dying, -G      the element conntrack is not closed
//	  [USERSPACE] ...   after an event of a program's making, between elements
//	-o save
//	  HEARTBEAT_SENT    of SCTP is "(null)"
//	  marks, labels     missing: what is loaded again has none
//	  helper            missing
//	-L                  without -f lists both families, not IPv4 as its manual says
//	-I
//	  --reply-port-src, --reply-key-src and their like   ignored without -r and -q
//	  -n, -g            one address and one port; ranges are refused
//	  -c                refused
//	  -w, expect        refused: expectations are made in zone 0 only
//	  --icmp-id, --orig-vtag, --reply-vtag   decimal only: others are taken for 0
//	  --state HEARTBEAT_SENT   of SCTP: it crashes
//	-I, -U
//	  -m M -u S         the mark becomes the number of the flags in S; -u S -m M is right
//	-U, -G
//	  -w                refused
//	-F
//	  -f                ignored: both families go
//	-I expect
//	  -p tcp            not sent with the tuple, and so neither are the ports
//	  -t                the kernel takes the helper's timeout
//	-D expect           takes the expected tuple with the options of the master's,
//	                    and wants ports of replies, to ignore them; when it has
//	                    deleted one, its exit status is 1
//	-C expect           counts those of IPv4
//	all
//	  SCTP tags         read and printed in the wrong byte order
//	  TCP windows, sequence adjustment, SYN proxy, master: not shown

// labelNames names all labels, as the file connlabel.conf does.
var labelNames = func() (names []string) {
	for bit := range 128 {
		names = append(names, "label"+strconv.Itoa(bit))
	}
	return names
}()

// labelFile is that file.
var labelFile = func() string {
	var file strings.Builder
	for bit, name := range labelNames {
		fmt.Fprintln(&file, bit, name)
	}
	return file.String()
}()

// conntrackCommand returns a conntrack(8) that is to be started inside of NS.Do.
// It knows labelNames where its arguments are about labels.
func conntrackCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(nstest.NeedConntrack(t), args...)
	if strings.Contains(strings.Join(args, " "), "label") {
		cmd = nstest.ConntrackWithLabels(t, labelFile, args...)
	}
	cmd.Env = append(cmd.Environ(), "TZ=UTC", "LC_ALL=C")
	return cmd
}

// run runs conntrack(8) with args, which are separated by spaces, and returns
// what it prints.
func run(t *testing.T, ns *nstest.NS, args string) string {
	t.Helper()
	stdout, stderr, err := try(t, ns, args)
	require.NoError(t, err, "conntrack %s: %s", args, stderr)
	// Some failures leave no trace in the exit status.
	require.NotContains(t, stderr, "Operation failed", "conntrack %s", args)
	return stdout
}

func try(t *testing.T, ns *nstest.NS, args string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := conntrackCommand(t, strings.Fields(args)...)
	var out, message bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &message
	ns.Do(func() error {
		err = cmd.Run()
		return nil
	})
	return out.String(), message.String(), err
}

// An xmlFlow is a flow as conntrack(8) prints it with -o xml. An element that is
// missing is an empty string, and what is not known ends up in Rest.
type xmlFlow struct {
	Type   string    `xml:"type,attr"`
	Metas  []xmlMeta `xml:"meta"`
	Helper string    `xml:"helper"`
	When   *xmlWhen  `xml:"when"`
	Rest   []xmlRest `xml:",any"`
}

type xmlMeta struct {
	Direction string       `xml:"direction,attr"`
	Layer3    *xmlLayer3   `xml:"layer3"`
	Layer4    *xmlLayer4   `xml:"layer4"`
	Counters  *xmlCounters `xml:"counters"`
	Zone      string       `xml:"zone"`
	State     string       `xml:"state"`
	Timeout   string       `xml:"timeout"`
	Mark      string       `xml:"mark"`
	Labels    []string     `xml:"labels>label"`
	Use       string       `xml:"use"`
	ID        string       `xml:"id"`
	Unreplied *struct{}    `xml:"unreplied"`
	Assured   *struct{}    `xml:"assured"`
	Timestamp *xmlTime     `xml:"timestamp"`
	DeltaTime string       `xml:"deltatime"`
	Rest      []xmlRest    `xml:",any"`
}

type xmlLayer3 struct {
	Number string    `xml:"protonum,attr"`
	Name   string    `xml:"protoname,attr"`
	Src    string    `xml:"src"`
	Dst    string    `xml:"dst"`
	Rest   []xmlRest `xml:",any"`
}

type xmlLayer4 struct {
	Number  string    `xml:"protonum,attr"`
	Name    string    `xml:"protoname,attr"`
	SrcPort string    `xml:"sport"`
	DstPort string    `xml:"dport"`
	SrcKey  string    `xml:"srckey"`
	DstKey  string    `xml:"dstkey"`
	Rest    []xmlRest `xml:",any"`
}

type xmlCounters struct {
	Packets string    `xml:"packets"`
	Bytes   string    `xml:"bytes"`
	Rest    []xmlRest `xml:",any"`
}

type xmlTime struct {
	Start string    `xml:"start"`
	Stop  string    `xml:"stop"`
	Rest  []xmlRest `xml:",any"`
}

type xmlWhen struct {
	Hour    int       `xml:"hour"`
	Minute  int       `xml:"min"`
	Second  int       `xml:"sec"`
	Weekday int       `xml:"wday"`
	Day     int       `xml:"day"`
	Month   int       `xml:"month"`
	Year    int       `xml:"year"`
	Rest    []xmlRest `xml:",any"`
}

// An xmlExpect is an expectation as conntrack(8) prints it with -o xml.
type xmlExpect struct {
	Type   string           `xml:"type,attr"`
	Layer3 xmlExpectTuples3 `xml:"layer3"`
	Layer4 xmlExpectTuples4 `xml:"layer4"`
	Meta   xmlExpectMeta    `xml:"meta"`
	Rest   []xmlRest        `xml:",any"`
}

type xmlExpectTuples3 struct {
	Number   string    `xml:"protonum,attr"`
	Name     string    `xml:"protoname,attr"`
	Expected xmlLayer3 `xml:"expected"`
	Mask     xmlLayer3 `xml:"mask"`
	Master   xmlLayer3 `xml:"master"`
	Rest     []xmlRest `xml:",any"`
}

type xmlExpectTuples4 struct {
	Number   string    `xml:"protonum,attr"`
	Name     string    `xml:"protoname,attr"`
	Expected xmlLayer4 `xml:"expected"`
	Mask     xmlLayer4 `xml:"mask"`
	Master   xmlLayer4 `xml:"master"`
	Rest     []xmlRest `xml:",any"`
}

type xmlExpectMeta struct {
	Helper    string    `xml:"helper-name"`
	Timeout   string    `xml:"timeout"`
	Class     string    `xml:"class"`
	Zone      string    `xml:"zone"`
	When      *xmlWhen  `xml:"when"`
	Permanent *struct{} `xml:"permanent"`
	Inactive  *struct{} `xml:"inactive"`
	Userspace *struct{} `xml:"userspace"`
	Rest      []xmlRest `xml:",any"`
}

// An xmlRest is an element that these tests do not know.
type xmlRest struct {
	XMLName xml.Name
	Inner   string `xml:",innerxml"`
}

// asXML returns f as conntrack(8) prints it at a time.
func asXML(f *conntrack.Flow, now time.Time) xmlFlow {
	meta := xmlMeta{
		Direction: "independent",
		State:     xmlState(f.ProtoInfo),
		Timeout:   fmt.Sprint(f.Timeout),
		Mark:      fmt.Sprint(f.Mark),
		Labels:    labelsOf(f),
		Zone:      number(f.Zone),
		Use:       number(f.Use),
		ID:        number(f.ID),
		Unreplied: flag(!f.Status.SeenReply()),
		Assured:   flag(f.Status.Assured()),
	}
	if start := f.Timestamp.Start; !start.IsZero() {
		meta.Timestamp = &xmlTime{Start: fmt.Sprint(start.UnixNano())}
		if stop := f.Timestamp.Stop; !stop.IsZero() {
			meta.Timestamp.Stop = fmt.Sprint(stop.UnixNano())
			now = stop
		}
		meta.DeltaTime = fmt.Sprint(now.Unix() - start.Unix())
	}
	return xmlFlow{
		Metas: []xmlMeta{
			xmlDirection("original", f, &f.TupleOrig, &f.CountersOrig),
			xmlDirection("reply", f, &f.TupleReply, &f.CountersReply),
			meta,
		},
		Helper: f.Helper.Name,
	}
}

func xmlDirection(name string, f *conntrack.Flow, t *conntrack.Tuple, c *conntrack.Counter) xmlMeta {
	l3, l4 := layer3(t), layer4(t)
	meta := xmlMeta{Direction: name, Layer3: &l3, Layer4: &l4, Zone: number(t.Zone)}
	if f.Counted() {
		meta.Counters = &xmlCounters{Packets: fmt.Sprint(c.Packets), Bytes: fmt.Sprint(c.Bytes)}
	}
	return meta
}

func layer3(t *conntrack.Tuple) xmlLayer3 {
	l := xmlLayer3{Src: t.IP.SourceAddress.String(), Dst: t.IP.DestinationAddress.String()}
	l.Number, l.Name = familyOf(t)
	return l
}

func familyOf(t *conntrack.Tuple) (number, name string) {
	if t.IP.IsIPv6() {
		return "10", "ipv6"
	}
	return "2", "ipv4"
}

func layer4(t *conntrack.Tuple) xmlLayer4 {
	l := xmlLayer4{Number: fmt.Sprint(t.Proto.Protocol), Name: protocolName(t)}
	switch p := t.Proto; {
	case hasKeys(t):
		l.SrcKey, l.DstKey = fmt.Sprintf("%#x", p.SourcePort), fmt.Sprintf("%#x", p.DestinationPort)
	case hasPorts(t):
		l.SrcPort, l.DstPort = fmt.Sprint(p.SourcePort), fmt.Sprint(p.DestinationPort)
	}
	return l
}

func protocolName(t *conntrack.Tuple) string {
	if p := t.Proto; !p.ICMPv4 && !p.ICMPv6 && !hasKeys(t) && !hasPorts(t) {
		return "unknown"
	}
	return conntrack.Protocol(t.Proto.Protocol).String()
}

func hasKeys(t *conntrack.Tuple) bool { return t.Proto.Protocol == conntrack.ProtocolGRE }

func hasPorts(t *conntrack.Tuple) bool {
	switch t.Proto.Protocol {
	case conntrack.ProtocolTCP, conntrack.ProtocolUDP, conntrack.ProtocolUDPLite,
		conntrack.ProtocolSCTP, conntrack.ProtocolDCCP:
		return true
	}
	return false
}

// xmlState is the name of a state with -o xml, which has only those of TCP.
func xmlState(p conntrack.ProtoInfo) string {
	switch {
	case p.SCTP != nil:
		return conntrack.TCPState(p.SCTP.State).String()
	case p.DCCP != nil:
		return conntrack.TCPState(p.DCCP.State).String()
	}
	return textState(p)
}

func textState(p conntrack.ProtoInfo) string {
	switch {
	case p.TCP != nil:
		return conntrack.TCPState(p.TCP.State).String()
	case p.SCTP != nil:
		return conntrack.SCTPState(p.SCTP.State).String()
	case p.DCCP != nil:
		return conntrack.DCCPState(p.DCCP.State).String()
	}
	return ""
}

func labelsOf(f *conntrack.Flow) (names []string) {
	for bit, name := range labelNames {
		if f.HasLabel(bit) {
			names = append(names, name)
		}
	}
	return names
}

// number returns v, or nothing if it is zero.
func number[T ~uint16 | ~uint32](v T) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprint(v)
}

func flag(set bool) *struct{} {
	if set {
		return new(struct{})
	}
	return nil
}

// asText returns f as a line of -o extended,id,labels, but for what changes with
// time.
func asText(f *conntrack.Flow) string {
	return ofText(f.Text(conntrack.TextOptions{Extended: true, ID: true, KTimestamp: true, Labels: labelNames}))
}

// ofText returns a line of conntrack(8) without what changes with time.
func ofText(line string) string {
	line, start, found := strings.Cut(line, " [start=")
	if found {
		_, rest, _ := strings.Cut(start, "]")
		line += rest
	}
	words := strings.Fields(line)
	words = slices.Delete(words, 4, 5) // the timeout
	words = slices.DeleteFunc(words, func(word string) bool { return strings.HasPrefix(word, "delta-time=") })
	return strings.Join(words, " ")
}

// asSaved returns f as a line of -o save, but for the timeout.
func asSaved(f *conntrack.Flow) string { return ofSaved(f.Text(conntrack.TextOptions{Save: true})) }

// swapped returns an SCTP tag as conntrack(8) takes and prints it.
func swapped(tag uint32) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, tag))
}

func ofSaved(line string) string {
	words := strings.Fields(line)
	return strings.Join(slices.Delete(words, 1, 3), " ") // -t and the timeout
}

// requireShown asserts that conntrack(8) lists what a dump has. What may change
// in between, such as counters and the number of users, does so for a moment.
func requireShown(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
	t.Helper()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	families, labels := make(map[string]bool), ""
	for _, f := range flows {
		_, family := familyOf(&f.TupleOrig)
		families[family] = true
		if f.Labels != nil {
			labels = ",labels"
		}
	}
	for family := range families {
		requireEventually(t, func() (ours, theirs map[string]xmlFlow) {
			listed := run(t, ns, "-L -o xml,id,ktimestamp"+labels+" -f "+family)
			return xmlFlows(t, c, family), listedFlows(t, listed)
		}, withinSecond)
	}
	requireEventually(t, func() (ours, theirs []string) {
		listed := run(t, ns, "-L -o extended,id,ktimestamp"+labels)
		return lines(t, c, asText), listedLines(listed, ofText)
	}, nil)
	requireEventually(t, func() (ours, theirs []string) {
		listed := run(t, ns, "-L -o save")
		requireReadBack(t, listed, conntrack.TextOptions{Save: true})
		return lines(t, c, asSaved), listedLines(listed, ofSaved)
	}, nil)
	if slices.ContainsFunc(flows, func(f conntrack.Flow) bool { return !f.Timestamp.Start.IsZero() }) {
		return // the age in the line depends on the time of day
	}
	requireReadBack(t, run(t, ns, "-L"), conntrack.TextOptions{})
	requireReadBack(t, run(t, ns, "-L -o extended,id,labels"), conntrack.TextOptions{Extended: true, ID: true, Labels: labelNames})
}

// requireReadBack asserts that each line that conntrack(8) printed is printed again
// from what was read of it.
func requireReadBack(t *testing.T, listed string, o conntrack.TextOptions) {
	t.Helper()
	for line := range strings.Lines(listed) {
		line = strings.TrimRight(line, " \n")
		f, err := o.ParseFlow(line)
		require.NoError(t, err, line)
		require.Equal(t, line, f.Text(o))
	}
}

// requireEventually asserts that both values that show returns become equal.
// The function adapt, if not nil, takes away from ours what may differ.
func requireEventually[T any](t *testing.T, show func() (ours, theirs T), adapt func(ours, theirs T)) {
	t.Helper()
	for range 20 {
		ours, theirs := show()
		if adapt != nil {
			adapt(ours, theirs)
		}
		if assert.ObjectsAreEqual(theirs, ours) {
			return
		}
	}
	ours, theirs := show()
	if adapt != nil {
		adapt(ours, theirs)
	}
	require.Equal(t, theirs, ours, "conntrack(8), and a dump")
}

func xmlFlows(t *testing.T, c *conntrack.Conn, family string) map[string]xmlFlow {
	t.Helper()
	now := time.Now()
	flows := make(map[string]xmlFlow)
	dump, err := c.Dump(nil)
	require.NoError(t, err)
	for _, f := range dump {
		if _, name := familyOf(&f.TupleOrig); name == family {
			flows[fmt.Sprint(f.ID)] = asXML(&f, now)
		}
	}
	return flows
}

// listedFlows returns the flows of an XML document, by their IDs.
func listedFlows(t *testing.T, document string) map[string]xmlFlow {
	t.Helper()
	flows := make(map[string]xmlFlow)
	if document == "" {
		return flows
	}
	var table struct {
		XMLName xml.Name  `xml:"conntrack"`
		Flows   []xmlFlow `xml:"flow"`
		Rest    []xmlRest `xml:",any"`
	}
	// Some listings are not closed.
	document = strings.TrimSuffix(strings.TrimSpace(document), "</conntrack>") + "</conntrack>"
	require.NoError(t, xml.Unmarshal([]byte(document), &table))
	require.Empty(t, table.Rest)
	for _, f := range table.Flows {
		require.Len(t, f.Metas, 3)
		id := f.Metas[2].ID
		require.NotContains(t, flows, id)
		flows[id] = f
	}
	return flows
}

// withinSecond makes the times of ours those of theirs, where they differ by a
// second at most.
func withinSecond(ours, theirs map[string]xmlFlow) {
	for id, f := range ours {
		if their, found := theirs[id]; found {
			adaptTime(&f.Metas[2].Timeout, their.Metas[2].Timeout)
			adaptTime(&f.Metas[2].DeltaTime, their.Metas[2].DeltaTime)
		}
	}
}

func adaptTime(ours *string, theirs string) {
	a, errA := strconv.Atoi(*ours)
	b, errB := strconv.Atoi(theirs)
	if errA == nil && errB == nil && a-b <= 1 && b-a <= 1 {
		*ours = theirs
	}
}

// lines returns the flows as lines, sorted.
func lines(t *testing.T, c *conntrack.Conn, line func(*conntrack.Flow) string) []string {
	t.Helper()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	lines := make([]string, 0, len(flows))
	for _, f := range flows {
		lines = append(lines, line(&f))
	}
	slices.Sort(lines)
	return lines
}

// listedLines returns the lines of what conntrack(8) prints, sorted.
func listedLines(listed string, line func(string) string) []string {
	lines := []string{}
	for l := range strings.Lines(listed) {
		lines = append(lines, line(strings.TrimSpace(l)))
	}
	slices.Sort(lines)
	return lines
}

// TestConntrackListsTraffic lets conntrack(8) list what packets made.
func TestConntrackListsTraffic(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const (
		tcp, udp, sctp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP
		label          = 0x80
	)
	at := netip.AddrPortFrom
	other6 := at(nstest.IPv6, 9090)
	tests := []struct {
		name string
		send func(t *testing.T, ns *nstest.NS)
		want func(f *conntrack.Flow) bool // the flow that the test is about
	}{
		{
			"TCP SYN_SENT", func(t *testing.T, ns *nstest.NS) {
				dropIncoming(t, ns)
				connect(t, ns, client4, server4)
			}, tcpState(conntrack.TCPStateSynSent),
		},
		{
			"TCP SYN_SENT2", func(t *testing.T, ns *nstest.NS) {
				dropIncoming(t, ns)
				connect(t, ns, client4, server4)
				connect(t, ns, server4, client4)
			}, tcpState(conntrack.TCPStateSynSent2),
		},
		{
			"TCP SYN_RECV", func(t *testing.T, ns *nstest.NS) {
				// The SYN arrives, and its answer is dropped.
				ns.Drop(tcp, client4.Port())
				listenTCP(t, ns, server4)
				connect(t, ns, client4, server4)
			}, tcpState(conntrack.TCPStateSynRecv),
		},
		{
			"TCP ESTABLISHED", func(_ *testing.T, ns *nstest.NS) { ns.TCP(client4, server4) },
			tcpState(conntrack.TCPStateEstablished),
		},
		{
			"TCP ESTABLISHED IPv6", func(_ *testing.T, ns *nstest.NS) { ns.TCP(client6, server6).Send(make([]byte, 1<<16)) },
			tcpState(conntrack.TCPStateEstablished),
		},
		{
			"TCP FIN_WAIT", func(t *testing.T, ns *nstest.NS) {
				p := ns.TCP(client4, server4)
				ns.Drop(tcp, server4.Port())
				require.NoError(t, p.Client.CloseWrite())
			}, tcpState(conntrack.TCPStateFinWait),
		},
		{
			"TCP CLOSE_WAIT", func(t *testing.T, ns *nstest.NS) {
				p := ns.TCP(client4, server4)
				require.NoError(t, p.Client.CloseWrite())
				_, err := io.Copy(io.Discard, p.Server)
				require.NoError(t, err)
			}, tcpState(conntrack.TCPStateCloseWait),
		},
		{
			"TCP LAST_ACK", func(t *testing.T, ns *nstest.NS) {
				p := ns.TCP(client4, server4)
				require.NoError(t, p.Client.CloseWrite())
				_, err := io.Copy(io.Discard, p.Server)
				require.NoError(t, err)
				ns.Drop(tcp, client4.Port())
				require.NoError(t, p.Server.CloseWrite())
			}, tcpState(conntrack.TCPStateLastAck),
		},
		{
			"TCP TIME_WAIT", func(_ *testing.T, ns *nstest.NS) { ns.TCP(client6, server6).Close() },
			tcpState(conntrack.TCPStateTimeWait),
		},
		{
			"TCP CLOSE", func(_ *testing.T, ns *nstest.NS) { ns.TCP(client4, server4).Abort() },
			tcpState(conntrack.TCPStateClose),
		},
		{
			"UDP", func(_ *testing.T, ns *nstest.NS) { ns.UDP(client4, server4, true) },
			func(f *conntrack.Flow) bool { return f.Status.SeenReply() },
		},
		{
			"UDP IPv6", func(_ *testing.T, ns *nstest.NS) { ns.UDP(client6, server6, true) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.IP.IsIPv6() },
		},
		{
			"UDP without reply", func(_ *testing.T, ns *nstest.NS) { ns.UDP(client4, server4, false) },
			func(f *conntrack.Flow) bool { return !f.Status.SeenReply() },
		},
		{
			"ICMP", func(_ *testing.T, ns *nstest.NS) { ns.ICMPEcho(server4.Addr(), 0xfffe) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.ICMPv4 },
		},
		{
			"ICMPv6", func(_ *testing.T, ns *nstest.NS) { ns.ICMPEcho(server6.Addr(), 0xfffe) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.ICMPv6 },
		},
		{
			"SCTP", func(_ *testing.T, ns *nstest.NS) { ns.SCTP(client4, server4) },
			sctpState(conntrack.SCTPStateEstablished),
		},
		{
			"SCTP IPv6", func(_ *testing.T, ns *nstest.NS) { ns.SCTP(client6, server6) },
			sctpState(conntrack.SCTPStateEstablished),
		},
		{
			"GRE", func(_ *testing.T, ns *nstest.NS) { ns.GRE(client4.Addr(), server4.Addr(), 0xbeef) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.DestinationPort == 0xbeef },
		},
		{
			"UDP-Lite", func(_ *testing.T, ns *nstest.NS) {
				ns.Raw(unix.IPPROTO_UDPLITE, client4.Addr(), server4.Addr(), []byte{0, 1, 0, 2, 0, 8, 0, 1})
			}, func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.Protocol == conntrack.ProtocolUDPLite },
		},
		{
			"unknown protocol", func(_ *testing.T, ns *nstest.NS) { ns.Raw(253, client6.Addr(), server6.Addr(), []byte("hello")) },
			func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.Protocol == 253 },
		},
		{
			"SNAT", func(_ *testing.T, ns *nstest.NS) {
				ns.SNAT(udp, server4, other4)
				ns.UDP(client4, server4, true)
			}, translatedTo(conntrack.StatusSrcNAT),
		},
		{
			"DNAT", func(_ *testing.T, ns *nstest.NS) {
				ns.DNAT(tcp, server4, other4)
				ns.TCPThrough(client4, server4, other4)
			}, translatedTo(conntrack.StatusDstNAT),
		},
		{
			"SNAT and DNAT", func(_ *testing.T, ns *nstest.NS) {
				ns.DNAT(udp, server4, other4)
				ns.SNAT(udp, other4, at(server4.Addr(), 0))
				ns.UDPThrough(client4, server4, other4, true)
			}, translatedTo(conntrack.StatusNATMask),
		},
		{
			"IPv6 SNAT and DNAT", func(_ *testing.T, ns *nstest.NS) {
				ns.DNAT(tcp, server6, other6)
				ns.SNAT(tcp, other6, at(server6.Addr(), 7))
				ns.TCPThrough(client6, server6, other6)
			}, translatedTo(conntrack.StatusNATMask),
		},
		{
			"mark", func(_ *testing.T, ns *nstest.NS) {
				ns.Mark(udp, server4.Port(), 0xf00dbeef)
				ns.UDP(client4, server4, true)
			}, func(f *conntrack.Flow) bool { return f.Mark == 0xf00dbeef },
		},
		{
			"labels", func(_ *testing.T, ns *nstest.NS) {
				ns.Label(udp, server4.Port(), [16]byte{1, 2, 4, 8, 4: 1, 8: 2, 15: label})
				ns.UDP(client4, server4, true)
			}, func(f *conntrack.Flow) bool { return len(f.Labels) == 16 && f.Labels[15] == label },
		},
		{
			"zone", func(_ *testing.T, ns *nstest.NS) {
				ns.Zone(tcp, server6.Port(), 0xffff)
				ns.TCP(client6, server6)
			}, func(f *conntrack.Flow) bool { return f.Zone == 0xffff },
		},
		{
			"zone of the original direction", func(t *testing.T, ns *nstest.NS) {
				nft(t, ns, "udp dport 8080 ct original zone set 5")
				ns.UDP(client4, server4, true)
			}, func(f *conntrack.Flow) bool { return f.TupleOrig.Zone == 5 },
		},
		{
			"zone of the reply direction", func(t *testing.T, ns *nstest.NS) {
				nft(t, ns, "udp dport 8080 ct reply zone set 6")
				ns.UDP(client6, server6, false)
			}, func(f *conntrack.Flow) bool { return f.TupleReply.Zone == 6 },
		},
		{
			"helper", func(_ *testing.T, ns *nstest.NS) {
				ns.Helper("ftp", tcp, server4.Port())
				ns.Zone(tcp, server4.Port(), 3)
				ns.TCP(client4, server4)
			}, func(f *conntrack.Flow) bool { return f.Helper.Name == "ftp" },
		},
		{
			"expected by a helper", func(_ *testing.T, ns *nstest.NS) {
				ns.Helper("ftp", tcp, server4.Port())
				p := ns.TCP(client4, server4)
				p.Send([]byte("USER anonymous\r\n"))
				p.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
				ns.TCP(at(server4.Addr(), 20), at(client4.Addr(), 51210))
			}, func(f *conntrack.Flow) bool { return f.Status.Expected() },
		},
		{
			"many", func(_ *testing.T, ns *nstest.NS) {
				for i := range uint16(20) {
					ns.UDP(at(client4.Addr(), 1000+i), at(server4.Addr(), 2000+i), i%2 == 0)
					ns.UDP(at(client6.Addr(), 1000+i), at(server6.Addr(), 2000+i), i%3 == 0)
				}
			}, func(f *conntrack.Flow) bool { return f.TupleOrig.Proto.SourcePort == 1019 },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
			c := dial(t, ns)
			tt.send(t, ns)
			awaitFlow(t, c, tt.want)
			requireShown(t, ns, c)
		})
	}
}

// awaitFlow waits until there is such a flow: what acknowledges a packet may come
// later than what the packet carries.
func awaitFlow(t *testing.T, c *conntrack.Conn, want func(*conntrack.Flow) bool) {
	t.Helper()
	var flows []conntrack.Flow
	require.Eventually(t, func() (there bool) {
		var err error
		flows, err = c.Dump(nil)
		return err == nil && slices.ContainsFunc(flows, func(f conntrack.Flow) bool { return want(&f) })
	}, patience, time.Millisecond, "%+v", &flows)
}

func tcpState(state uint8) func(*conntrack.Flow) bool {
	return func(f *conntrack.Flow) bool { return f.ProtoInfo.TCP != nil && f.ProtoInfo.TCP.State == state }
}

func sctpState(state uint8) func(*conntrack.Flow) bool {
	return func(f *conntrack.Flow) bool { return f.ProtoInfo.SCTP != nil && f.ProtoInfo.SCTP.State == state }
}

func translatedTo(flags conntrack.StatusFlag) func(*conntrack.Flow) bool {
	return func(f *conntrack.Flow) bool { return f.Status.Value&conntrack.StatusNATMask == flags }
}

// listenTCP listens, and accepts nothing.
func listenTCP(t *testing.T, ns *nstest.NS, addr netip.AddrPort) {
	t.Helper()
	ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	})
}

// nft adds a rule for packets before they are tracked: one that the Go package
// for nftables cannot express.
func nft(t *testing.T, ns *nstest.NS, rule string) {
	t.Helper()
	cmd := exec.Command(nstest.Command(t, "nft"), "-f", "-")
	cmd.Stdin = strings.NewReader("table inet zones { chain out { type filter hook output priority raw; " + rule + "; }; }")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	ns.Do(cmd.Run)
	require.Empty(t, output.String())
}

// TestConntrackListsCreated lets conntrack(8) list what this package makes, of
// each attribute and in each protocol.
func TestConntrackListsCreated(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const tcp, udp, sctp, gre = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_GRE
	base := flowBetween(udp, client4, server4)
	base6 := flowBetween(udp, client6, server6)
	withTCP := func(p conntrack.ProtoInfoTCP) conntrack.Flow {
		return with(flowBetween(tcp, client4, server4), func(f *conntrack.Flow) { f.ProtoInfo.TCP = &p })
	}
	withSCTP := func(state uint8) conntrack.Flow {
		return with(flowBetween(sctp, client4, server4), func(f *conntrack.Flow) {
			f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: state, VTagOriginal: 0x01020304, VTagReply: 0xfffefdfc}
		})
	}
	status := func(s conntrack.StatusFlag) conntrack.Flow {
		return with(base, func(f *conntrack.Flow) { f.Status.Value = s })
	}
	nat := func(f conntrack.Flow, source, destination string) conntrack.Flow {
		f.NAT = &conntrack.NAT{Source: natTo(source), Destination: natTo(destination)}
		return f
	}

	tests := map[string][]conntrack.Flow{
		"both families": {base, base6},
		"timeouts": {
			with(newFlow(1), func(f *conntrack.Flow) { f.Timeout = 10 }),
			with(newFlow(2), func(f *conntrack.Flow) { f.Timeout = 1 << 20 }),
		},
		"marks": {
			with(newFlow(1), func(f *conntrack.Flow) { f.Mark = 1 }),
			with(newFlow6(2), func(f *conntrack.Flow) { f.Mark = 0xffffffff }),
		},
		"labels": {
			with(newFlow(1), func(f *conntrack.Flow) { f.Labels = []byte{0x81, 1, 2, 4, 8, 15: 0x80} }),
			with(newFlow(2), func(f *conntrack.Flow) { f.Labels = bytes.Repeat([]byte{0xff}, 16) }),
		},
		"zones": {
			with(base, func(f *conntrack.Flow) { f.Zone = 1 }),
			with(base, func(f *conntrack.Flow) { f.Zone = 0xffff }),
			with(base, func(f *conntrack.Flow) { f.TupleOrig.Zone = 2 }),
			with(base6, func(f *conntrack.Flow) { f.TupleReply.Zone = 0xffff }),
		},
		"no status":                 {status(0)},
		"status SEEN_REPLY":         {status(conntrack.StatusSeenReply)},
		"status ASSURED":            {status(conntrack.StatusAssured)},
		"status FIXED_TIMEOUT":      {status(conntrack.StatusFixedTimeout)},
		"all status flags":          {status(conntrack.StatusSeenReply | conntrack.StatusAssured | conntrack.StatusFixedTimeout)},
		"helper":                    {newMaster("ftp", tcp, client4, server4), newMaster("tftp", udp, client6, server6)},
		"master":                    {newFlow(1), with(newFlow(2), func(f *conntrack.Flow) { f.TupleMaster = newFlow(1).TupleOrig })},
		"GRE keys":                  {flowBetween(gre, client4, server4), flowBetween(gre, client6, server6)},
		"ICMP":                      icmpFlows(),
		"UDP-Lite":                  {flowBetween(unix.IPPROTO_UDPLITE, client4, server4), flowBetween(unix.IPPROTO_UDPLITE, client6, server6)},
		"reply from somewhere else": {with(base, func(f *conntrack.Flow) { f.TupleReply = tuple(udp, other4, client4) })},
		"TCP windows, sequence adjustment and SYN proxy": {with(withTCP(conntrack.ProtoInfoTCP{
			State: 3, OriginalWindowScale: 7, ReplyWindowScale: 9, OriginalFlags: 0x0101, ReplyFlags: 0x0101,
		}), func(f *conntrack.Flow) {
			f.SeqAdjOrig = conntrack.SequenceAdjust{Position: 1, OffsetBefore: 2, OffsetAfter: 3}
			f.SynProxy = conntrack.SynProxy{ISN: 1, ITS: 2, TSOff: 3}
		})},
		"SNAT":               {nat(newFlow(1), "192.0.2.1:0", ""), nat(newFlow(2), "192.0.2.1:77", "")},
		"DNAT":               {nat(newFlow(1), "", "192.0.2.1:0"), nat(newFlow(2), "", "192.0.2.1:77")},
		"SNAT and DNAT":      {nat(newFlow(1), "192.0.2.1:5", "192.0.2.2:6")},
		"IPv6 SNAT and DNAT": {nat(newFlow6(1), "[2001:db8::a]:5", "[2001:db8::b]:6"), nat(newFlow6(2), "[2001:db8::a]:0", "")},
		"NAT to ranges": {with(newFlow(1), func(f *conntrack.Flow) {
			f.NAT = &conntrack.NAT{
				Source:      conntrack.NATRange{MinAddr: netip.MustParseAddr("192.0.2.1"), MaxAddr: netip.MustParseAddr("192.0.2.9"), MinPort: 100, MaxPort: 200},
				Destination: conntrack.NATRange{MinAddr: netip.MustParseAddr("192.0.2.11"), MaxAddr: netip.MustParseAddr("192.0.2.19"), MinPort: 100, MaxPort: 200},
			}
		})},
		"every protocol": everyProtocol(),
		"DCCP":           {with(flowBetween(unix.IPPROTO_DCCP, client4, server4), setDCCP), with(flowBetween(unix.IPPROTO_DCCP, client6, server6), setDCCP)},
	}
	for state := range uint8(conntrack.TCPStateSynSent2 + 1) {
		tests["TCP "+conntrack.TCPState(state).String()] = []conntrack.Flow{withTCP(conntrack.ProtoInfoTCP{State: state})}
	}
	for state := range uint8(conntrack.SCTPStateHeartbeatSent + 1) {
		tests["SCTP "+conntrack.SCTPState(state).String()] = []conntrack.Flow{withSCTP(state)}
	}
	for name, flows := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t, nstest.Timestamps())
			ns.Labels()
			c := dial(t, ns)
			create(t, c, flows...)
			requireShown(t, ns, c)
			for _, f := range flows {
				if f.NAT != nil {
					requireTranslated(t, f.NAT, get(t, c, f))
				}
				require.NoError(t, c.Delete(f))
			}
			require.Empty(t, run(t, ns, "-L"))
		})
	}
}

func setDCCP(f *conntrack.Flow) {
	f.ProtoInfo.DCCP = &conntrack.ProtoInfoDCCP{State: conntrack.DCCPStateOpen, Role: conntrack.DCCPRoleServer, HandshakeSeq: 5}
}

func natTo(s string) conntrack.NATRange {
	if s == "" {
		return conntrack.NATRange{}
	}
	return conntrack.NATTo(netip.MustParseAddrPort(s))
}

// requireTranslated asserts that f is translated into what nat says.
func requireTranslated(t *testing.T, nat *conntrack.NAT, f conntrack.Flow) {
	t.Helper()
	reply := f.TupleReply
	require.Equal(t, nat.Source.MinAddr.IsValid(), f.Status.SrcNAT())
	require.Equal(t, nat.Destination.MinAddr.IsValid(), f.Status.DstNAT())
	requireWithin(t, nat.Source, reply.IP.DestinationAddress, reply.Proto.DestinationPort)
	requireWithin(t, nat.Destination, reply.IP.SourceAddress, reply.Proto.SourcePort)
}

func requireWithin(t *testing.T, r conntrack.NATRange, addr netip.Addr, port uint16) {
	t.Helper()
	if r.MinAddr.IsValid() {
		last := r.MaxAddr
		if !last.IsValid() {
			last = r.MinAddr
		}
		require.False(t, addr.Less(r.MinAddr) || last.Less(addr), addr)
	}
	if r.MinPort != 0 {
		require.GreaterOrEqual(t, port, r.MinPort)
		require.LessOrEqual(t, port, max(r.MinPort, r.MaxPort))
	}
}

// icmpFlows returns a flow of each query that the kernel tracks.
func icmpFlows() (flows []conntrack.Flow) {
	add := func(proto uint8, src, dst netip.Addr, query uint8) {
		f := conntrack.Flow{TupleOrig: echoTuple(proto, src, dst, query, 0xfffe), Timeout: 60}
		f.TupleReply = f.TupleOrig.Reverse()
		flows = append(flows, f)
	}
	for _, query := range []uint8{0, 8, 13, 14, 15, 16, 17, 18} {
		add(unix.IPPROTO_ICMP, client4.Addr(), server4.Addr(), query)
	}
	for _, query := range []uint8{128, 129, 139, 140} {
		add(unix.IPPROTO_ICMPV6, client6.Addr(), server6.Addr(), query)
	}
	return flows
}

// everyProtocol returns flows of all protocols but ICMP and DCCP, of the other
// family each time.
func everyProtocol() (flows []conntrack.Flow) {
	for proto := 1; proto < 256; proto++ {
		src, dst := client4, server4
		if proto%2 == 0 {
			src, dst = client6, server6
		}
		switch proto {
		case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_DCCP:
			continue
		}
		f := flowBetween(uint8(proto), src, dst)
		if !hasPorts(&f.TupleOrig) && !hasKeys(&f.TupleOrig) {
			f = flowBetween(uint8(proto), netip.AddrPortFrom(src.Addr(), 0), netip.AddrPortFrom(dst.Addr(), 0))
		}
		flows = append(flows, f)
	}
	return flows
}

// TestConntrackCreates looks at what conntrack -I makes, with each option that
// its manual has for it.
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
	icmp := func(proto uint8, src, dst netip.Addr, typ, code uint8, id uint16) conntrack.Flow {
		f := conntrack.Flow{TupleOrig: echoTuple(proto, src, dst, typ, id), Timeout: 120}
		f.TupleOrig.Proto.ICMPCode = code
		f.TupleReply = f.TupleOrig.Reverse()
		return f
	}
	// It sets flags of its own, so that the kernel lets packets pass.
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
	// reply is f with replies between these ends.
	reply := func(f conntrack.Flow, status conntrack.StatusFlag, src, dst string) conntrack.Flow {
		f.TupleReply = tuple(f.TupleOrig.Proto.Protocol, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
		f.Status.Value = status
		return f
	}

	type test struct {
		name, args string
		want       conntrack.Flow
	}
	tests := []test{
		{"UDP", ends + "-p udp " + ports, flow(udp)},
		{"UDP IPv6", ends6 + "-p udp " + ports, flow6(udp)},
		{"UDP-Lite", ends + "-p udplite " + ports, flow(unix.IPPROTO_UDPLITE)},
		{"UDP-Lite IPv6", ends6 + "-p udplite " + ports, flow6(unix.IPPROTO_UDPLITE)},
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
		{"mark, which the status flags take the place of", ends + "-p udp -m 0x10 -u ASSURED " + ports, with(flow(udp), func(f *conntrack.Flow) {
			f.Mark, f.Status.Value = uint32(conntrack.StatusAssured), conntrack.StatusAssured
		})},
		{"mark after the status flags", ends + "-p udp -u ASSURED -m 0x10 " + ports, with(flow(udp), func(f *conntrack.Flow) {
			f.Mark, f.Status.Value = 0x10, conntrack.StatusAssured
		})},
		{"zone", ends + "-p udp -w 65535 " + ports, with(flow(udp), func(f *conntrack.Flow) { f.Zone = 65535 })},
		{"zone of the original direction", ends + "-p udp --orig-zone 7 " + ports, with(flow(udp), func(f *conntrack.Flow) { f.TupleOrig.Zone = 7 })},
		{"zone of the reply direction", ends6 + "-p udp --reply-zone 8 " + ports, with(flow6(udp), func(f *conntrack.Flow) { f.TupleReply.Zone = 8 })},
		{"a label", ends + "-p udp --label-add label0 " + ports, label(flow(udp), 0)},
		{"labels", ends + "-p udp --label-add label1,label33 --label-add label127 " + ports, label(flow(udp), 1, 33, 127)},

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
	if kernelAtLeast(t, 6, 17) { // which does not track it
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

			// What the one has made the other cannot make again.
			_, message, err := try(t, ns, "-I "+args)
			require.Error(t, err)
			require.Contains(t, message, "Such conntrack exists")
			require.ErrorIs(t, c.Create(tt.want), fs.ErrExist)
			run(t, ns, "-A "+args)
			requireFlow(t, tt.want, dumpOne(t, c))
		})
	}
}

// TestConntrackReloads lets conntrack(8) save and load flows, which are then what
// they were, but for what its format leaves out.
func TestConntrackReloads(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const tcp, udp, sctp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP
	ns := nstest.New(t)
	c := dial(t, ns)
	flags := conntrack.TCPFlags(conntrack.TCPFlagSACKPerm|conntrack.TCPFlagBeLiberal, 0) // what it sets
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

// flowsByTuple returns the flows of the table, without what makes them new.
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

// TestConntrackGets compares what conntrack -G and Get return.
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

// TestConntrackRefused asserts that what the kernel refuses to conntrack(8) it
// refuses to this package, with the same error.
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

// TestConntrackUpdates looks at what conntrack -U makes of a flow, and that an
// Update makes the same of it.
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
		update conntrack.Flow             // the same, without tuples
		want   func(want *conntrack.Flow) // what differs from flow then
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

// TestConntrackDeletes asserts that what the one deletes is gone for the other.
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
		ours       func(t *testing.T, c *conntrack.Conn) // the same
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

// TestConntrackZeroes asserts that counters that the one sets to zero are zero
// for the other, and that both have returned what they were before.
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
			f.Metas[2].Use = listed[id].Metas[2].Use // a packet's reference may have gone
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

// asXMLExpect returns ex as conntrack(8) prints it.
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

// requireExpectsShown is requireShown for expectations.
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

// key tells ex from others.
func (ex *xmlExpect) key() string {
	return fmt.Sprint(ex.Layer3.Expected, ex.Layer4.Expected, ex.Layer4.Name)
}

// TestConntrackListsExpects lets conntrack(8) list the expectations that helpers
// and this package make.
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

// TestConntrackCreatesExpects looks at what conntrack -I expect makes.
func TestConntrackCreatesExpects(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const (
		tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
		all6     = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
		ports    = " --sport 40000 --dport 8080 --tuple-port-src 5 --tuple-port-dst 6 --mask-port-src 0 --mask-port-dst 65535"
	)
	at := netip.MustParseAddrPort
	// Of TCP it sends no protocol, without which the kernel takes no ports.
	lost := func(t conntrack.Tuple) conntrack.Tuple { return conntrack.Tuple{IP: t.IP} }
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

// TestConntrackDeletesExpects deletes one of two expectations.
func TestConntrackDeletesExpects(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	ns := nstest.New(t)
	c := dial(t, ns)
	// A master with this helper has no more than one.
	ftp4 := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	ftp6 := newMaster("ftp", unix.IPPROTO_TCP, client6, server6)
	create(t, c, ftp4, ftp6)
	require.NoError(t, c.CreateExpect(newExpect(ftp4, other4)))
	require.NoError(t, c.CreateExpect(newExpect(ftp6, server6)))

	const ports = " --sport 0 --dport 9090 --reply-port-src 9090 --reply-port-dst 0"
	run(t, ns, "-G expect -p udp -s 127.0.0.9 -d 127.0.0.3"+ports)
	// What it deletes it does not count, and so takes for nothing.
	_, message, err := try(t, ns, "-D expect -p udp -s 127.0.0.9 -d 127.0.0.3"+ports)
	require.Error(t, err)
	require.NotContains(t, message, "failed")
	expects, err := c.DumpExpect()
	require.NoError(t, err)
	require.Len(t, expects, 1)
	require.Equal(t, newExpect(ftp6, server6).Tuple, expects[0].Tuple)
	requireExpectsShown(t, ns, c)
}

// TestConntrackStats compares the counters of each CPU, some of which are made to
// count.
func TestConntrackStats(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const udp = unix.IPPROTO_UDP
	ns := nstest.New(t)
	c := dial(t, ns)
	// insert, and found: a translation to a port that is taken.
	ns.SNAT(udp, server4, netip.AddrPortFrom(other4.Addr(), 0))
	create(t, c, flowBetween(udp, netip.AddrPortFrom(other4.Addr(), client4.Port()), server4))
	ns.UDP(client4, server4, true)
	// invalid, or error: a TCP header that is cut off.
	ns.Raw(unix.IPPROTO_TCP, client4.Addr(), server4.Addr(), []byte{1, 2, 3, 4})

	sum := make(map[string]uint32)
	requireEventually(t, func() (ours, theirs map[uint16]map[string]uint32) {
		theirs = parseStats(t, run(t, ns, "-S"))
		stats, err := c.Stats()
		require.NoError(t, err)
		ours = make(map[uint16]map[string]uint32)
		clear(sum)
		for _, s := range stats {
			ours[s.CPUID] = statsOf(s)
			for name, n := range ours[s.CPUID] {
				sum[name] += n
				// Those that the kernel does not send are not listed.
				if _, listed := theirs[s.CPUID][name]; !listed && n == 0 {
					delete(ours[s.CPUID], name)
				}
			}
		}
		return ours, theirs
	}, nil)
	require.NotZero(t, sum["found"])
	require.NotZero(t, sum["insert"])
	require.NotZero(t, sum["invalid"]+sum["error"])
}

// TestConntrackStatsExpect compares the counters for expectations, and how many
// flows and expectations there are.
func TestConntrackStatsExpect(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	ns := nstest.New(t)
	c := dial(t, ns)
	master := newMaster("ftp", unix.IPPROTO_TCP, client4, server4)
	create(t, c, master)
	// An expectation, what it is fulfilled by, and another one.
	require.NoError(t, c.CreateExpect(newExpect(master, other4)))
	ns.UDP(client4, other4, false)
	require.NoError(t, c.CreateExpect(newExpect(master, other4)))

	var sum conntrack.StatsExpect
	requireEventually(t, func() (ours, theirs map[uint16]map[string]uint32) {
		theirs = parseStats(t, run(t, ns, "-S expect"))
		stats, err := c.StatsExpect()
		require.NoError(t, err)
		ours, sum = make(map[uint16]map[string]uint32), conntrack.StatsExpect{}
		for _, s := range stats {
			ours[s.CPUID] = map[string]uint32{"expect_new": s.New, "expect_create": s.Create, "expect_delete": s.Delete}
			sum.New += s.New
			sum.Create += s.Create
			sum.Delete += s.Delete
		}
		return ours, theirs
	}, nil)
	require.Equal(t, conntrack.StatsExpect{New: 1, Create: 2, Delete: 1}, sum)

	stats, err := c.StatsGlobal()
	require.NoError(t, err)
	require.Equal(t, uint32(2), stats.Entries)
	require.Equal(t, "2", strings.TrimSpace(run(t, ns, "-C")))
	expects, err := c.DumpExpect()
	require.NoError(t, err)
	require.Len(t, expects, 1)
	require.Equal(t, "1", strings.TrimSpace(run(t, ns, "-C expect")))
}

func statsOf(s conntrack.Stats) map[string]uint32 {
	return map[string]uint32{
		"found": s.Found, "invalid": s.Invalid, "ignore": s.Ignore, "insert": s.Insert, "insert_failed": s.InsertFailed,
		"drop": s.Drop, "early_drop": s.EarlyDrop, "error": s.Error, "search_restart": s.SearchRestart,
		"clash_resolve": s.ClashResolve, "chaintoolong": s.ChainTooLong,
		"searched": s.Searched, "new": s.New, "delete": s.Delete, "delete_list": s.DeleteList,
	}
}

// parseStats returns the counters of lines such as "cpu=0 found=1 ...", by CPU
// and by name.
func parseStats(t *testing.T, output string) map[uint16]map[string]uint32 {
	t.Helper()
	stats := make(map[uint16]map[string]uint32)
	for line := range strings.Lines(output) {
		counters := make(map[string]uint32)
		for _, word := range strings.Fields(line) {
			name, value, _ := strings.Cut(word, "=")
			n, err := strconv.ParseUint(value, 10, 32)
			require.NoError(t, err, line)
			counters[name] = uint32(n)
		}
		require.Contains(t, counters, "cpu")
		cpu := uint16(counters["cpu"])
		delete(counters, "cpu")
		stats[cpu] = counters
	}
	return stats
}

// TestConntrackEvents compares the events that conntrack -E and this package
// receive.
func TestConntrackEvents(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	tests := []struct {
		name string
		do   func(t *testing.T, ns *nstest.NS, c *conntrack.Conn)
		want []string // the first types
	}{
		{
			"by this package", func(t *testing.T, _ *nstest.NS, c *conntrack.Conn) {
				ns := with(newFlow(1), func(f *conntrack.Flow) { f.Mark, f.Zone = 7, 3 })
				create(t, c, ns, newFlow6(1), with(newFlow(2), func(f *conntrack.Flow) { f.TupleOrig.Zone = 9 }))
				require.NoError(t, c.Update(with(newFlow6(1), func(f *conntrack.Flow) { f.Mark = 5 })))
				require.NoError(t, c.Update(with(newFlow6(1), func(f *conntrack.Flow) { f.MarkMask = 0xff })))
				require.NoError(t, c.Update(with(newFlow6(1), func(f *conntrack.Flow) { f.Status.Value = conntrack.StatusAssured })))
				require.NoError(t, c.Update(with(newFlow6(1), func(f *conntrack.Flow) { f.Labels = []byte{1, 15: 0x80} })))
				require.NoError(t, c.Delete(ns))
				require.NoError(t, c.Flush())
			}, []string{"new", "new", "new", "update", "update", "update", "update", "destroy", "destroy", "destroy"},
		},
		{
			"by conntrack(8)", func(t *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
				const flow = "-p sctp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 "
				run(t, ns, "-I "+flow+"-t 100 --state COOKIE_WAIT --orig-vtag 1 --reply-vtag 2 --label-add label9")
				run(t, ns, "-U -p sctp -s 10.0.0.1 -m 0x10")
				run(t, ns, "-U -p sctp -s 10.0.0.1 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2")
				run(t, ns, "-U -p sctp -s 10.0.0.1 --label-add label100")
				run(t, ns, "-D "+flow)
			}, []string{"new", "update", "update", "update", "destroy"},
		},
		{
			"TCP", func(_ *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
				ns.TCP(client4, server4).Close()
				ns.TCP(client6, server6).Abort()
			}, []string{"new", "update", "update", "update"},
		},
		{
			"UDP and ICMP", func(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
				ns.UDP(client4, server4, true)
				ns.UDP(client6, server6, false)
				ns.ICMPEcho(server4.Addr(), 5)
				ns.ICMPEcho(server6.Addr(), 5)
				require.NoError(t, c.Flush())
			}, []string{"new", "update", "new", "new", "update", "new", "update", "destroy", "destroy", "destroy", "destroy"},
		},
		{
			"NAT, mark, label and zone", func(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
				ns.DNAT(udp, server4, other4)
				ns.SNAT(udp, other4, netip.AddrPortFrom(server4.Addr(), 7))
				ns.UDPThrough(client4, server4, other4, true)
				ns.Mark(udp, server6.Port(), 9)
				ns.Label(udp, server6.Port(), [16]byte{1, 15: 0x80})
				ns.Zone(udp, server6.Port(), 6)
				ns.UDP(client6, server6, true)
				require.NoError(t, c.Flush())
			}, []string{"new", "update", "new", "update", "destroy", "destroy"},
		},
		{
			"helper", func(_ *testing.T, ns *nstest.NS, _ *conntrack.Conn) {
				ns.Helper("ftp", tcp, server4.Port())
				p := ns.TCP(client4, server4)
				p.Send([]byte("USER anonymous\r\n"))
				p.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
				ns.TCP(netip.AddrPortFrom(server4.Addr(), 20), netip.AddrPortFrom(client4.Addr(), 51210))
			}, []string{"new", "update", "update", "new", "update", "update"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
			ns.Labels()
			c := dial(t, ns)
			theirs := events[xmlFlow](t, ns, "-E -o xml,timestamp,id,ktimestamp,labels")
			ours := listen(t, dial(t, ns), netfilter.GroupsCT)
			awaitListeners(t, ns, 2)
			tt.do(t, ns, c)
			create(t, c, lastFlow())

			var types []string
			for last := false; !last; {
				ev := receive(t, ours)
				require.NotNil(t, ev.Flow)
				last = ev.Flow.Mark == lastMark
				their, our := receive(t, theirs), asXML(ev.Flow, time.Now())
				requireWhen(t, ev.Time, their.When)
				our.Type, their.When = xmlType(ev.Type), nil
				adaptEvent(&our, &their)
				require.Equal(t, their, our)
				types = append(types, our.Type)
			}
			require.Greater(t, len(types), len(tt.want), types)
			require.Equal(t, tt.want, types[:len(tt.want)])
		})
	}
}

func xmlType(typ conntrack.EventType) string {
	switch typ {
	case conntrack.EventNew, conntrack.EventExpNew:
		return "new"
	case conntrack.EventUpdate:
		return "update"
	case conntrack.EventDestroy, conntrack.EventExpDestroy:
		return "destroy"
	}
	return typ.String()
}

// requireWhen asserts that their is when the event happened: a little later, as
// it is when it was received.
func requireWhen(t *testing.T, happened time.Time, their *xmlWhen) {
	t.Helper()
	require.NotNil(t, their)
	require.Empty(t, their.Rest)
	at := time.Date(their.Year, time.Month(their.Month), their.Day, their.Hour, their.Minute, their.Second, 0, time.UTC)
	require.Equal(t, int(at.Weekday())+1, their.Weekday)
	if happened.IsZero() {
		happened = time.Now()
	}
	require.WithinDuration(t, happened, at, patience)
}

// adaptEvent takes away from ours what the kernel did not send: events have no
// mark of zero and may have no timeout. The time that has passed may differ by a
// second.
func adaptEvent(ours, theirs *xmlFlow) {
	if len(theirs.Metas) != 3 {
		return
	}
	our, their := &ours.Metas[2], &theirs.Metas[2]
	for _, field := range []struct{ ours, theirs *string }{{&our.Mark, &their.Mark}, {&our.Timeout, &their.Timeout}} {
		if *field.theirs == "" && *field.ours == "0" {
			*field.ours = ""
		}
	}
	adaptTime(&our.DeltaTime, their.DeltaTime)
}

// events starts a conntrack(8) that prints elements of the type T as it receives
// events, and returns these.
func events[T any](t *testing.T, ns *nstest.NS, args string) <-chan T {
	t.Helper()
	cmd := conntrackCommand(t, strings.Fields(args)...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	ns.Do(cmd.Start)
	elements := make(chan T, 4096)
	done := make(chan struct{})
	go func() {
		defer close(done)
		decode(stdout, elements)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		<-done
		_ = cmd.Wait()
	})
	return elements
}

// decode sends the elements of a document that are named flow.
func decode[T any](r io.Reader, elements chan<- T) {
	d := xml.NewDecoder(r)
	for {
		token, err := d.Token()
		if err != nil {
			return
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "flow" {
			continue
		}
		var element T
		if d.DecodeElement(&element, &start) != nil {
			return
		}
		elements <- element
	}
}

// awaitListeners waits until there are n sockets in ns that listen.
func awaitListeners(t *testing.T, ns *nstest.NS, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		listening := 0
		ns.Do(func() error {
			sockets, err := os.ReadFile("/proc/thread-self/net/netlink")
			for line := range strings.Lines(string(sockets)) {
				fields := strings.Fields(line)
				if fields[1] == strconv.Itoa(unix.NETLINK_NETFILTER) && fields[3] != "00000000" {
					listening++
				}
			}
			return err
		})
		return listening == n
	}, patience, time.Millisecond)
}

// TestConntrackExpectEvents is TestConntrackEvents for expectations.
func TestConntrackExpectEvents(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	ns := nstest.New(t)
	ns.Helper("ftp", unix.IPPROTO_TCP, server4.Port())
	c := dial(t, ns)
	theirs := events[xmlExpect](t, ns, "-E expect -o xml,timestamp,id")
	ours := listen(t, dial(t, ns), netfilter.GroupsCTExp)
	awaitListeners(t, ns, 2)

	p := ns.TCP(client4, server4)
	p.Send([]byte("USER anonymous\r\n"))
	p.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
	ns.TCP(netip.AddrPortFrom(server4.Addr(), 20), netip.AddrPortFrom(client4.Addr(), 51210))
	master := newMaster("ftp", unix.IPPROTO_TCP, client6, server6)
	create(t, c, master)
	last := newExpect(master, server6)
	require.NoError(t, c.CreateExpect(last))
	run(t, ns, "-F expect")

	var types []string
	for done := false; !done; {
		ev := receive(t, ours)
		require.NotNil(t, ev.Expect)
		done = ev.Type == conntrack.EventExpDestroy && ev.Expect.Tuple == last.Tuple
		their, our := receive(t, theirs), asXMLExpect(ev.Expect)
		requireWhen(t, ev.Time, their.Meta.When)
		our.Type, their.Meta.When = xmlType(ev.Type), nil
		require.Equal(t, their, our)
		types = append(types, our.Type)
	}
	// Over loopback the helper reads everything twice, and its second expectation
	// takes the place of the first.
	require.Equal(t, []string{"new", "destroy", "new", "destroy", "new", "destroy"}, types)
}

// TestConntrackListsDying compares the flows that -L dying has, whose last event
// a listener that asked for it has no room for, with what they were before.
func TestConntrackListsDying(t *testing.T) {
	t.Parallel()
	nstest.NeedConntrack(t)
	const n = 5
	ns := nstest.New(t, nstest.Timestamps())
	c := dial(t, ns)
	config := ns.Config()
	config.Groups = 1 << (netfilter.GroupCTDestroy - 1)
	listener, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	require.NoError(t, listener.SetOption(netlink.BroadcastError, true))
	require.NoError(t, listener.SetReadBuffer(1)) // the kernel takes the least that it allows

	for i := range n {
		create(t, c, with(newFlow(i), func(f *conntrack.Flow) { f.Mark = uint32(i) }), newFlow6(i))
	}
	before := map[string]map[string]xmlFlow{"ipv4": xmlFlows(t, c, "ipv4"), "ipv6": xmlFlows(t, c, "ipv6")}
	require.NoError(t, c.Flush())
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Empty(t, flows)

	dying := make(map[string]xmlFlow)
	for family := range before {
		maps.Copy(dying, listedFlows(t, run(t, ns, "-L dying -o xml,id,ktimestamp -f "+family)))
	}
	require.NotEmpty(t, dying)
	ends := lastEvents(t, listener, 2*n)
	for id, f := range dying {
		our := before[f.Metas[0].Layer3.Name][id]
		our.Metas[2].Timestamp.Stop = asXML(ends[id], time.Now()).Metas[2].Timestamp.Stop
		adaptTime(&our.Metas[2].Timeout, f.Metas[2].Timeout)
		adaptTime(&our.Metas[2].DeltaTime, f.Metas[2].DeltaTime)
		require.Equal(t, f, our)
	}
}

// lastEvents receives the last events of n flows, which the kernel tries to
// deliver again and again.
func lastEvents(t *testing.T, listener *netlink.Conn, n int) map[string]*conntrack.Flow {
	t.Helper()
	require.NoError(t, listener.SetReadDeadline(time.Now().Add(patience)))
	flows := make(map[string]*conntrack.Flow)
	for len(flows) < n {
		messages, err := listener.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			continue
		}
		require.NoError(t, err)
		for _, m := range messages {
			var ev conntrack.Event
			require.NoError(t, ev.Unmarshal(m))
			flows[fmt.Sprint(ev.Flow.ID)] = ev.Flow
		}
	}
	return flows
}
