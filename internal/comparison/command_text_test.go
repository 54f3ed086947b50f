//go:build linux

package comparison_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// Package cttext differs from conntrack(8) 1.4.7 in these, for these reasons:
//
//	progname=               is what conntrack(8) finds in /proc for portid, if it is quick enough
//	use=0, id=0             no kernel sends that, and flows that are not the kernel's have neither
//	secmark=                no kernel since 2.6.36 sends it
//	[UNREPLIED]             without a status there is no flag; every kernel sends a status
//
// It also prints these oddities, so that lines can be compared:
//
//	labels                  the = is taken for a comma too many where no label has a name
//	NONE, (null)            for states without a name; -o save has none for SCTP's newer ones
//	-o save                 has no mark, labels, helper
//	--orig-vtag             has the bytes of SCTP's tags in the machine's byte order
//	-E expect -o timestamp  has microseconds with blanks behind instead of zeros before them
//	::192.0.2.1             IPv6 addresses that the C library takes for IPv4-compatible ones

// textForms are the output formats of conntrack(8), with the Options for them.
var textForms = []struct {
	flag    string
	options cttext.Options
}{
	{"", cttext.Options{}},
	{"extended", cttext.Options{Extended: true}},
	{"id", cttext.Options{ID: true}},
	{"ktimestamp", cttext.Options{KTimestamp: true}},
	{"labels", cttext.Options{Labels: textLabels}},
	{"save", cttext.Options{Save: true}},
	{"timestamp", cttext.Options{Timestamp: true}},
	{"extended,id,ktimestamp,labels", cttext.Options{Extended: true, ID: true, KTimestamp: true, Labels: textLabels}},
}

const textLabelFile = "# names of labels\n0 zero\n1\tone\n0x7 seven of nine\n127 last\n5 no_name\n"

var textLabels, _ = cttext.ReadLabelNames(strings.NewReader(textLabelFile))

// textZone is a time zone other than the machine's.
const textZone = "EST5"

var textLocation = time.FixedZone("EST", -5*60*60)

// textCommand returns a conntrack(8) command with its own configuration file.
func textCommand(t *testing.T, flag string, args ...string) *exec.Cmd {
	t.Helper()
	if flag != "" {
		args = append(args, "-o", flag)
	}
	cmd := nstest.ConntrackWithLabels(t, textLabelFile, args...)
	cmd.Env = append(cmd.Environ(), "TZ="+textZone)
	return cmd
}

// textLines returns the lines that conntrack(8) prints, without the final blank
// of -o save.
func textLines(t *testing.T, ns *nstest.NS, flag string, args ...string) (lines []string) {
	t.Helper()
	cmd := textCommand(t, flag, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	ns.Do(func() error {
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: %s", err, stderr.String())
		}
		return nil
	})
	for line := range strings.Lines(stdout.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return lines
}

// requireFlowLines asserts that conntrack(8) lists the table in each format as
// cttext prints it, and that its lines can be parsed.
func requireFlowLines(t *testing.T, ns *nstest.NS, c *conntrack.Conn) {
	t.Helper()
	for _, form := range textForms {
		o := form.options
		o.Location = textLocation
		// Timeouts and ages are in seconds, which may pass in between.
		unchanged(t, func() bool {
			before, now := dumpText(t, c, &o), o.Now
			lines := textLines(t, ns, form.flag, "-L")
			after := dumpText(t, c, &o)
			if now.Unix() != o.Now.Unix() || !slices.Equal(before, after) {
				return false
			}
			slices.Sort(lines)
			require.Equal(t, before, lines, form.flag)
			for _, line := range lines {
				f, err := o.ParseFlow(line)
				require.NoError(t, err, line)
				require.Equal(t, line, o.Flow(&f))
			}
			return true
		})
	}
}

// unchanged calls compare until it returns true: nothing changed during the
// comparison.
func unchanged(t *testing.T, compare func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !compare(); {
		require.True(t, time.Now().Before(deadline), "the table changes all the time")
	}
}

// dumpText returns the table as sorted text. It sets o.Now.
func dumpText(t *testing.T, c *conntrack.Conn, o *cttext.Options) (lines []string) {
	t.Helper()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	o.Now = time.Now()
	for _, f := range flows {
		lines = append(lines, o.Flow(&f))
	}
	slices.Sort(lines)
	return lines
}

func TestTextAsCommandTraffic(t *testing.T) {
	t.Parallel()
	needSteadyUse(t)
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	c := dial(t, ns)
	port := uint16(20000)
	ends := func(client, server netip.AddrPort) (netip.AddrPort, netip.AddrPort) {
		port++
		return netip.AddrPortFrom(client.Addr(), port), netip.AddrPortFrom(server.Addr(), port)
	}
	ns.Label(unix.IPPROTO_TCP, 8080, [16]byte{0b10100011, 15: 0b10000000})
	ns.Helper("ftp", unix.IPPROTO_TCP, 8081)
	ns.Mark(unix.IPPROTO_TCP, 8082, 0xffffffff)
	ns.Zone(unix.IPPROTO_TCP, 8083, 7)
	for p := server4.Port(); p < server4.Port()+4; p++ {
		ns.TCP(netip.AddrPortFrom(client4.Addr(), 0), netip.AddrPortFrom(server4.Addr(), p))
	}
	ns.TCP(client6, server6)
	ns.TCP(ends(client4, server4)).Close()
	ns.TCP(ends(client6, server6)).Abort()
	for _, reply := range []bool{true, false} {
		src, dst := ends(client4, server4)
		ns.UDP(src, dst, reply)
		src, dst = ends(client6, server6)
		ns.UDP(src, dst, reply)
	}
	ns.ICMPEcho(server4.Addr(), 42)
	ns.ICMPEcho(server6.Addr(), 42)
	ns.SCTP(ends(client4, server4))
	ns.SCTP(ends(client6, server6))
	ns.GRE(client4.Addr(), server4.Addr(), 0xbeef)
	ns.GRE(client6.Addr(), server6.Addr(), 0xbeef)
	ns.Raw(253, client4.Addr(), server4.Addr(), []byte("hello"))
	src, dst := ends(client4, server4)
	ns.DNAT(unix.IPPROTO_TCP, dst, other4)
	ns.TCPThrough(src, dst, other4)
	src, dst = ends(client4, server4)
	ns.DNAT(unix.IPPROTO_UDP, dst, netip.AddrPortFrom(server4.Addr(), 9999)) // only the port
	ns.UDPThrough(src, dst, netip.AddrPortFrom(server4.Addr(), 9999), true)
	src, dst = ends(client4, server4)
	ns.SNAT(unix.IPPROTO_UDP, dst, other4)
	ns.UDP(src, dst, true)
	requireFlowLines(t, ns, c)
}

// textFlows returns flows with every attribute that can be set.
func textFlows(t *testing.T) (flows []conntrack.Flow) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::0.1.0.2")
	add := func(protocol uint8, change func(f *conntrack.Flow)) {
		f := conntrack.NewFlow(protocol, 0, a, b, 0, 0, 3000, 0)
		if len(flows)%2 == 1 {
			f = conntrack.NewFlow(protocol, 0, a6, b6, 0, 0, 3000, 0)
		}
		if port := uint16(len(flows) + 1); protocol != conntrack.ProtocolICMP && protocol != conntrack.ProtocolICMPv6 {
			f.TupleOrig.Proto.SourcePort, f.TupleOrig.Proto.DestinationPort = port, 53
			f.TupleReply = f.TupleOrig.Reverse()
		}
		change(&f)
		flows = append(flows, f)
	}
	for state := range uint8(conntrack.TCPStateSynSent2 + 1) {
		add(conntrack.ProtocolTCP, func(f *conntrack.Flow) {
			f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{
				State: state, OriginalWindowScale: 7, ReplyWindowScale: 3,
				OriginalFlags: conntrack.TCPFlags(conntrack.TCPFlagWindowScale, 0xff),
			}
		})
	}
	for state := range uint8(conntrack.SCTPStateHeartbeatSent + 1) {
		add(conntrack.ProtocolSCTP, func(f *conntrack.Flow) {
			f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: state, VTagOriginal: 1 << 31, VTagReply: uint32(state)}
		})
	}
	portsOfUDPLite := !kernelAtLeast(t, 7, 2) // which does not track it
	for i, status := range []conntrack.StatusFlag{
		conntrack.StatusSeenReply, conntrack.StatusAssured, conntrack.StatusSeenReply | conntrack.StatusAssured,
		conntrack.StatusFixedTimeout, conntrack.StatusSeenReply | conntrack.StatusFixedTimeout,
	} {
		add(conntrack.ProtocolUDP, func(f *conntrack.Flow) { f.Status.Value = status })
		if i == 0 || portsOfUDPLite { // which tell them apart
			add(conntrack.ProtocolUDPLite, func(f *conntrack.Flow) { f.Status.Value, f.Mark = status, 1<<31 })
		}
	}
	for _, icmp := range []struct{ protocol, query uint8 }{
		{conntrack.ProtocolICMP, 8}, {conntrack.ProtocolICMP, 13}, {conntrack.ProtocolICMP, 15}, {conntrack.ProtocolICMP, 17},
		{conntrack.ProtocolICMPv6, 128}, {conntrack.ProtocolICMPv6, 139},
	} {
		add(icmp.protocol, func(f *conntrack.Flow) {
			src, dst := a, b
			if icmp.protocol == conntrack.ProtocolICMPv6 {
				src, dst = a6, b6
			}
			f.TupleOrig = echoTuple(icmp.protocol, src, dst, icmp.query, 0xfedc)
			f.TupleReply = f.TupleOrig.Reverse()
		})
	}
	add(conntrack.ProtocolGRE, func(f *conntrack.Flow) {})
	add(conntrack.ProtocolUDP, func(f *conntrack.Flow) { f.Zone = 65535 })
	add(conntrack.ProtocolUDP, func(f *conntrack.Flow) { f.TupleOrig.Zone = 9 })
	add(conntrack.ProtocolUDP, func(f *conntrack.Flow) { f.TupleReply.Zone = 8 })
	add(conntrack.ProtocolTCP, func(f *conntrack.Flow) { f.Helper.Name = "ftp" })
	add(conntrack.ProtocolTCP, func(f *conntrack.Flow) { f.SynProxy = conntrack.SynProxy{ISN: 1, ITS: 2, TSOff: 3} })
	add(conntrack.ProtocolTCP, func(f *conntrack.Flow) {
		f.SeqAdjOrig = conntrack.SequenceAdjust{Position: 1, OffsetBefore: 2, OffsetAfter: 3}
		f.Status.Value = conntrack.StatusSeqAdjust
	})
	add(conntrack.ProtocolUDP, func(f *conntrack.Flow) { f.TupleReply.Proto.DestinationPort = 9 }) // without NAT
	add(conntrack.ProtocolTCP, func(f *conntrack.Flow) {
		f.NAT = &conntrack.NAT{Source: conntrack.NATTo(netip.AddrPortFrom(f.TupleOrig.IP.DestinationAddress.Next(), 99))}
	})
	add(conntrack.ProtocolUDP, func(f *conntrack.Flow) {
		f.NAT = &conntrack.NAT{Destination: conntrack.NATTo(netip.AddrPortFrom(f.TupleOrig.IP.SourceAddress.Next(), 98))}
	})
	for _, bits := range [][]int{{0}, {0, 1, 7, 127}, {5}} {
		add(conntrack.ProtocolUDP, func(f *conntrack.Flow) {
			for _, bit := range bits {
				f.SetLabel(bit)
			}
			f.LabelsMask = nil
		})
	}
	return flows
}

func TestTextAsCommandCreated(t *testing.T) {
	t.Parallel()
	needSteadyUse(t)
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	ns.Labels()
	c := dial(t, ns)
	create(t, c, textFlows(t)...)
	requireFlowLines(t, ns, c)
}

// TestRestoreFromText asserts that a deleted flow can be restored from its
// printed line, as far as the line shows it.
func TestRestoreFromText(t *testing.T) {
	t.Parallel()
	for _, form := range textForms {
		if form.options.KTimestamp {
			continue // the start times differ
		}
		t.Run(form.flag, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			ns.Labels()
			c := dial(t, ns)
			create(t, c, textFlows(t)...)
			o := form.options
			restore := func() (texts []string) {
				flows, err := c.Dump(nil)
				require.NoError(t, err)
				for _, f := range flows {
					f.ID, f.Timeout, f.Use = 0, 3000, 1
					// Labels without a name are lost.
					texts = append(texts, strings.TrimSuffix(o.Flow(&f), " labels"))
				}
				slices.Sort(texts)
				return texts
			}
			before := restore()
			require.NoError(t, c.Flush())
			for _, text := range before {
				f, err := o.ParseFlow(text)
				require.NoError(t, err, text)
				require.NoError(t, c.Create(f), text)
			}
			require.Equal(t, before, restore())
			for _, text := range before {
				f, err := o.ParseFlow(text)
				require.NoError(t, err)
				require.NoError(t, c.Delete(f), text)
			}
			require.Zero(t, ns.Count())
		})
	}
}

func TestTextAsCommandExpect(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	createExpects(t, c)
	for _, form := range textForms {
		o := form.options
		unchanged(t, func() bool {
			before := expectText(t, c, &o)
			lines := textLines(t, ns, form.flag, "-L", "expect", "-f", "ipv4")
			lines = append(lines, textLines(t, ns, form.flag, "-L", "expect", "-f", "ipv6")...)
			if !slices.Equal(before, expectText(t, c, &o)) {
				return false
			}
			if o.Timestamp {
				lines = withoutTimes(t, &o, lines)
			}
			slices.Sort(lines)
			require.Equal(t, before, lines)
			return true
		})
	}
	expects, err := c.DumpExpect()
	require.NoError(t, err)
	require.NotEmpty(t, expects)
	for _, ex := range expects {
		// The line does not show everything.
		got, err := cttext.Options{}.ParseExpect(cttext.Options{}.Expect(&ex))
		require.NoError(t, err)
		got.ID, got.Function, got.NAT = ex.ID, ex.Function, ex.NAT
		require.Equal(t, ex, got)
	}
}

// withoutTimes removes the times from lines of expectations. It asserts that
// they are recent.
func withoutTimes(t *testing.T, o *cttext.Options, lines []string) []string {
	t.Helper()
	for i, line := range lines {
		prefix, rest, ok := strings.Cut(line, "\t")
		require.True(t, ok, line)
		ex, err := o.ParseExpect(line)
		require.NoError(t, err)
		var sec, usec int64
		_, err = fmt.Sscanf(prefix, "[%d.%d", &sec, &usec)
		require.NoError(t, err, line)
		o := *o
		o.Now = time.UnixMicro(sec*1e6 + usec)
		require.WithinDuration(t, time.Now(), o.Now, patience)
		require.Equal(t, line, o.Expect(&ex))
		lines[i] = rest
	}
	return lines
}

// expectText returns the expectations as sorted text without times.
func expectText(t *testing.T, c *conntrack.Conn, o *cttext.Options) (lines []string) {
	t.Helper()
	expects, err := c.DumpExpect()
	require.NoError(t, err)
	without := *o
	without.Timestamp = false
	for _, ex := range expects {
		lines = append(lines, without.Expect(&ex))
	}
	slices.Sort(lines)
	return lines
}

// createExpects creates expectations with all flags, for IPv4 and IPv6. The
// helper's policy allows one per master at a time.
func createExpects(t *testing.T, c *conntrack.Conn) {
	t.Helper()
	ends := [][2]netip.AddrPort{{client4, server4}, {client6, server6}}
	for i := range uint32(8) {
		client, server := ends[i%2][0], ends[i%2][1]
		master := conntrack.NewFlow(conntrack.ProtocolTCP, conntrack.StatusSeenReply|conntrack.StatusAssured,
			client.Addr(), server.Addr(), uint16(1000+i), 21, 3000, 0)
		master.Helper.Name = "ftp"
		create(t, c, master)
		full := netip.MustParseAddr("255.255.255.255")
		if client.Addr().Is6() {
			full = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
		}
		ex := conntrack.Expect{
			TupleMaster: master.TupleOrig,
			Tuple:       tuple(conntrack.ProtocolTCP, netip.AddrPortFrom(client.Addr(), 0), netip.AddrPortFrom(server.Addr(), uint16(5000+i))),
			Mask:        tuple(conntrack.ProtocolTCP, netip.AddrPortFrom(full, 0), netip.AddrPortFrom(full, 65535)),
			Timeout:     300,
			Flags:       i / 2,
		}
		if i%4 == 3 {
			ex.Function, ex.NAT.Direction, ex.NAT.Tuple = "nat-follow-master", true, ex.Tuple
		}
		require.NoError(t, c.CreateExpect(ex))
	}
}

// textEvents is a conntrack -E running in the background.
type textEvents struct {
	flag    string
	options cttext.Options
	lines   chan string
}

func followText(t *testing.T, ns *nstest.NS, flag string, o cttext.Options, args ...string) *textEvents {
	t.Helper()
	cmd := textCommand(t, flag, append([]string{"-E"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	ns.Do(cmd.Start)
	e := &textEvents{flag, o, make(chan string, 4096)}
	e.options.Location = textLocation
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			e.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	return e
}

// await calls event until a line contains mark. It returns the lines before
// that.
func (e *textEvents) await(t *testing.T, mark string, event func()) (before []string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		event()
		for waiting := true; waiting; {
			select {
			case line := <-e.lines:
				if strings.Contains(line, mark) {
					return before
				}
				before = append(before, line)
			case <-time.After(100 * time.Millisecond):
				waiting = false
			}
		}
	}
	require.FailNow(t, "no line of conntrack -E", "%s: %s", e.flag, mark)
	return nil
}

func TestTextAsCommandEvents(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t, nstest.Accounting(), nstest.Timestamps())
	ns.Labels()
	c, listener := dial(t, ns), dial(t, ns)
	// No other flow here has these addresses.
	mark := func(n int) (event func(), text string) {
		f := newFlow(n)
		return func() {
			create(t, c, f)
			require.NoError(t, c.Delete(f))
		}, f.TupleOrig.IP.SourceAddress.String() + " "
	}
	isMark := func(line string) bool { return strings.Contains(line, " 10.1.") || strings.Contains(line, "=10.1.") }

	var commands []*textEvents
	for _, form := range textForms {
		e := followText(t, ns, form.flag, form.options)
		event, text := mark(0)
		e.await(t, text, event)
		commands = append(commands, e)
	}
	events := listen(t, listener, netfilter.GroupsCT)
	printed := make([][]string, len(commands))
	marks := 0
	// The sockets of the commands have room for only a few events.
	catchUp := func() {
		marks++
		event, text := mark(marks)
		event()
		for i, e := range commands {
			printed[i] = append(printed[i], e.await(t, text, func() {})...)
		}
	}
	for flows := range slices.Chunk(textFlows(t), 10) {
		create(t, c, flows...)
		catchUp()
		for i, f := range flows {
			change := conntrack.Flow{TupleOrig: f.TupleOrig, Zone: f.Zone, Mark: 5}
			require.NoError(t, c.Update(change))
			if i%2 == 0 {
				change.Mark, change.MarkMask = 0, 1<<32-1
				change.SetLabel(i % 8)
				require.NoError(t, c.Update(change))
			}
		}
		catchUp()
		require.NoError(t, c.Flush())
		catchUp()
	}
	ns.TCP(client4, server4).Close()
	ns.UDP(client6, server6, true)
	ns.ICMPEcho(server4.Addr(), 7)
	require.NoError(t, c.Flush())
	catchUp()

	var got []conntrack.Event
	_, last := mark(marks)
	for text := ""; !strings.Contains(text, "[DESTROY]") || !strings.Contains(text, last); {
		e := receive(t, events)
		text = cttext.Options{}.Event(&e)
		if !isMark(text) {
			got = append(got, e)
		}
	}
	for i, e := range commands {
		requireEventLines(t, e, slices.DeleteFunc(printed[i], isMark), got)
	}
}

// requireEventLines asserts that conntrack(8) printed the same events, in any
// order.
func requireEventLines(t *testing.T, e *textEvents, lines []string, events []conntrack.Event) {
	t.Helper()
	for i, line := range lines {
		line, _, _ = strings.Cut(line, " progname=")
		lines[i] = line
		ev, err := e.options.ParseEvent(line)
		require.NoError(t, err, line)
		require.Equal(t, strings.TrimRight(line, " "), e.options.Event(&ev), e.flag)
		if e.options.Timestamp {
			require.WithinDuration(t, time.Now(), ev.Time, 2*patience)
		}
	}
	want, printed := textsOfEvents(events, e.options), withoutEventTimes(lines)
	slices.Sort(want)
	slices.Sort(printed)
	require.Equal(t, want, printed, e.flag)
}

func TestTextAsCommandExpectEvents(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c, listener := dial(t, ns), dial(t, ns)
	// Deleting the masters deletes their expectations.
	event := func() {
		createExpects(t, c)
		require.NoError(t, c.Flush())
	}
	var commands []*textEvents
	for _, form := range textForms {
		e := followText(t, ns, form.flag, form.options, "expect")
		e.await(t, "[DESTROY]", event)
		commands = append(commands, e)
	}
	events := listen(t, listener, netfilter.GroupsCTExp)
	event()
	var got []conntrack.Event
	for gone := 0; gone < 8; {
		e := receive(t, events)
		got = append(got, e)
		if e.Type == conntrack.EventExpDestroy {
			gone++
		}
	}
	for _, e := range commands {
		// The last lines are those of the last event.
		var lines []string
		for len(lines) < len(got) || !slices.Equal(withoutEventTimes(lines[len(lines)-len(got):]), textsOfEvents(got, e.options)) {
			lines = append(lines, receive(t, e.lines))
		}
		requireEventLines(t, e, lines[len(lines)-len(got):], got)
	}
}

// withoutEventTimes removes the times and final blanks from lines.
func withoutEventTimes(lines []string) (without []string) {
	for _, line := range lines {
		if prefix, rest, ok := strings.Cut(line, "\t"); ok && prefix[0] == '[' {
			line = rest
		}
		without = append(without, strings.TrimRight(line, " "))
	}
	return without
}

// textsOfEvents returns the events as text without times.
func textsOfEvents(events []conntrack.Event, o cttext.Options) (lines []string) {
	o.Timestamp = false
	for _, e := range events {
		lines = append(lines, o.Event(&e))
	}
	return lines
}
