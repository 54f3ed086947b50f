//go:build linux

package comparison_test

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// The tests in command_*_test.go compare the packages with conntrack(8), in both
// directions: each must see what the other does, in every field. They print a
// flow of package conntrack in three formats of conntrack(8) and compare these:
//
//	-o xml            addresses, ports, keys, zones, counters, state, timeout,
//	                  mark, labels, use, id, times, helper
//	-o extended,id    the same but the times, and ICMP types, codes and ids
//	-o save           status flags, SCTP tags, NAT
//
// conntrack(8) has defects that the tests work around. They know versions 1.4.7
// and 1.4.9, which differ in these:
//
//	                                      1.4.7                       1.4.9
//	-I, -U -m M -u S                      the mark becomes the        the mark is M
//	                                      number of the flags in S
//	-I expect -p tcp                      not sent with the tuple,    sent
//	                                      and so neither are the ports
//	-A of a flow that is there, with      done, as far as it goes     refused
//	  NAT or -u FIXED_TIMEOUT
//	--label-add A,B --label-add C         A, B and C                  A and C
//	-U without an address                 EOPNOTSUPP                  done
//	-A -m M of a flow that is there       the mark stays              the mark is M
//
// Both print the same. Both have these defects:
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
//	  -r, -q, ICMP      EINVAL without -s and -d
//	-U, -G
//	  -w                refused; -U of a flow that is in a zone changes that of the
//	                    default zone with its tuple, if there is one
//	-D
//	  -u UNREPLIED, -u !FLAG    ignored
//	  -t                ignored without another condition
//	-n, -g              an address behind = or in the same word is ignored
//	-F
//	  -f                ignored: both families go
//	-I expect
//	  -t                the kernel takes the helper's timeout
//	-D expect           takes the expected tuple with the options of the master's,
//	                    and wants ports of replies, to ignore them; when it has
//	                    deleted one, its exit status is 1
//	-C expect           counts those of IPv4
//	all
//	  SCTP tags         read and printed in the wrong byte order
//	  TCP windows, sequence adjustment, SYN proxy, master: not shown

// labelNames names all labels, like the file connlabel.conf.
var labelNames = func() (names []string) {
	for bit := range 128 {
		names = append(names, "label"+strconv.Itoa(bit))
	}
	return names
}()

// labelFile is the contents of that file.
var labelFile = func() string {
	var file strings.Builder
	for bit, name := range labelNames {
		fmt.Fprintln(&file, bit, name)
	}
	return file.String()
}()

// conntrackCommand returns a conntrack(8) command to start inside NS.Do. It
// knows labelNames if its arguments are about labels.
func conntrackCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(nstest.NeedConntrack(t), args...)
	if strings.Contains(strings.Join(args, " "), "label") {
		cmd = nstest.ConntrackWithLabels(t, labelFile, args...)
	}
	cmd.Env = append(cmd.Environ(), "TZ=UTC", "LC_ALL=C")
	return cmd
}

// run runs conntrack(8) with space-separated arguments and returns its output.
func run(t *testing.T, ns *nstest.NS, args string) string {
	t.Helper()
	stdout, stderr, err := try(t, ns, args)
	require.NoError(t, err, "conntrack %s: %s", args, stderr)
	// Some failures do not affect the exit status.
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

// An xmlFlow is a flow as printed by conntrack -o xml. A missing element is an
// empty string. Unknown elements are in Rest.
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

// An xmlExpect is an expectation as printed by conntrack -o xml.
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

// asXML returns f as conntrack(8) prints it at the time now.
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
	if t.Proto.Protocol == conntrack.ProtocolICMPv6 {
		return "icmpv6"
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

// xmlState returns the name of a state in -o xml, which only has TCP's names.
func xmlState(p conntrack.ProtoInfo) string {
	switch {
	case p.SCTP != nil:
		return conntrack.TCPState(p.SCTP.State).String()
	case p.DCCP != nil:
		return conntrack.TCPState(p.DCCP.State).String()
	}
	return textState(p)
}

func textState(p conntrack.ProtoInfo) string { return conntrack.Flow{ProtoInfo: p}.State() }

func labelsOf(f *conntrack.Flow) (names []string) {
	for bit, name := range labelNames {
		if f.HasLabel(bit) {
			names = append(names, name)
		}
	}
	return names
}

// number returns v as text, or "" if it is zero.
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

// asText returns f as a line of -o extended,id,labels, without the parts that
// change with time.
func asText(f *conntrack.Flow) string {
	return ofText(cttext.Options{Extended: true, ID: true, KTimestamp: true, Labels: labelNames}.Flow(f))
}

// ofText removes the parts that change with time from a line of conntrack(8).
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

// asSaved returns f as a line of -o save, without the timeout.
func asSaved(f *conntrack.Flow) string { return ofSaved(cttext.Options{Save: true}.Flow(f)) }

// swapped returns an SCTP tag as conntrack(8) reads and prints it.
func swapped(tag uint32) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, tag))
}

func ofSaved(line string) string {
	words := strings.Fields(line)
	return strings.Join(slices.Delete(words, 1, 3), " ") // -t and the timeout
}

// requireShown asserts that conntrack(8) lists the same flows as a dump. Values
// that may change in between, such as counters, are compared again.
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
		requireReadBack(t, listed, cttext.Options{Save: true})
		return lines(t, c, asSaved), listedLines(listed, ofSaved)
	}, nil)
	if slices.ContainsFunc(flows, func(f conntrack.Flow) bool { return !f.Timestamp.Start.IsZero() }) {
		return // the age in the line depends on the time of day
	}
	requireReadBack(t, run(t, ns, "-L"), cttext.Options{})
	requireReadBack(t, run(t, ns, "-L -o extended,id,labels"), cttext.Options{Extended: true, ID: true, Labels: labelNames})
}

// requireReadBack asserts that each line of conntrack(8) is the same after it
// was parsed and printed.
func requireReadBack(t *testing.T, listed string, o cttext.Options) {
	t.Helper()
	for line := range strings.Lines(listed) {
		line = strings.TrimRight(line, " \n")
		f, err := o.ParseFlow(line)
		require.NoError(t, err, line)
		require.Equal(t, line, o.Flow(&f))
	}
}

// requireEventually asserts that both values that show returns become equal. A
// non-nil adapt removes from ours what may differ.
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

// listedFlows returns the flows of an XML document by ID.
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
	// Some listings lack the closing tag.
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

// withinSecond sets the times of ours to those of theirs if they differ by at
// most a second.
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

// lines returns the flows as sorted lines.
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

// listedLines returns the sorted lines of conntrack(8)'s output.
func listedLines(listed string, line func(string) string) []string {
	lines := []string{}
	for l := range strings.Lines(listed) {
		lines = append(lines, line(strings.TrimSpace(l)))
	}
	slices.Sort(lines)
	return lines
}
