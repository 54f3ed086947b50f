package cttext_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
	"github.com/ti-mo/conntrack/netfilter"
)

var withLabels = cttext.Options{Labels: textLabels}

func parseCommand(t *testing.T, line string) cttext.Command {
	t.Helper()
	c, err := withLabels.ParseCommand(line)
	require.NoError(t, err, line)
	return c
}

var (
	addr1  = netip.MustParseAddr("192.0.2.1")
	addr2  = netip.MustParseAddr("192.0.2.2")
	public = netip.MustParseAddr("198.51.100.1")
)

// tcpFlow returns a flow that -I adds, modified by change.
func tcpFlow(change func(f *conntrack.Flow)) conntrack.Flow {
	f := conntrack.NewFlow(conntrack.ProtocolTCP, conntrack.StatusConfirmed, addr1, addr2, 1, 2, 10, 0)
	change(&f)
	return f
}

func tcpState(state uint8) *conntrack.ProtoInfoTCP {
	const liberal = conntrack.TCPFlagBeLiberal << 8
	return &conntrack.ProtoInfoTCP{State: state, OriginalFlags: liberal, ReplyFlags: liberal}
}

// TestCommandAdds asserts which flows the commands -I and -A add.
func TestCommandAdds(t *testing.T) {
	t.Parallel()
	const tcp = "-I -t 10 -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2"
	const nat = conntrack.StatusConfirmed | conntrack.StatusNATDoneMask
	toDestination := func(to netip.Addr, port uint16) conntrack.Flow {
		return tcpFlow(func(f *conntrack.Flow) {
			f.Status.Value = nat | conntrack.StatusDstNAT
			f.TupleReply.IP.SourceAddress, f.TupleReply.Proto.SourcePort = to, port
		})
	}
	for line, want := range map[string]conntrack.Flow{
		"conntrack " + tcp: tcpFlow(func(*conntrack.Flow) {}),
		"conntrack --create conntrack --timeout=10 --protonum 6 --orig-src '192.0.2.1' --dst=\"192.0.2.2\" --orig-port-src 1 --orig-port-dst=2": tcpFlow(func(*conntrack.Flow) {}),
		"-s192.0.2.1 -d192.0.2.2 -ptcp --sport 1 --dport=2 -t10 -I":                                                                             tcpFlow(func(*conntrack.Flow) {}),
		tcp + " -u SEEN_REPLY,assured --state LAST_ACK -w 5 --mark 0x10/0xff": tcpFlow(func(f *conntrack.Flow) {
			f.Status.Value |= conntrack.StatusSeenReply | conntrack.StatusAssured
			f.ProtoInfo.TCP = tcpState(conntrack.TCPStateLastAck)
			f.Zone, f.Mark, f.MarkMask = 5, 0x10, 1<<32-1 // the mask is ignored
		}),
		tcp + " --state LISTEN": tcpFlow(func(f *conntrack.Flow) { f.ProtoInfo.TCP = tcpState(conntrack.TCPStateSynSent2) }),
		tcp + " -n 198.51.100.1:80": tcpFlow(func(f *conntrack.Flow) {
			f.Status.Value = nat | conntrack.StatusSrcNAT
			f.TupleReply.IP.DestinationAddress, f.TupleReply.Proto.DestinationPort = public, 80
		}),
		tcp + " --dst-nat 198.51.100.1":         toDestination(public, 2),
		tcp + " --dst-nat=198.51.100.1":         toDestination(public, 2),
		tcp + " -g198.51.100.1:080":             toDestination(public, 80),
		tcp + " -f ipv4 -r 198.51.100.1":        tcpFlow(func(f *conntrack.Flow) { f.TupleReply.IP.SourceAddress = public }),
		tcp + " -m 010 -w 0x10":                 tcpFlow(func(f *conntrack.Flow) { f.Mark, f.MarkMask, f.Zone = 8, 1<<32-1, 16 }),
		tcp + " --label-add zero,last -u UNSET": tcpFlow(func(f *conntrack.Flow) { f.SetLabel(0); f.SetLabel(127) }),
		tcp + ` --label-add "a  b"`:             tcpFlow(func(f *conntrack.Flow) { f.SetLabel(1) }),
		tcp + " --orig-zone 011":                tcpFlow(func(f *conntrack.Flow) { f.TupleOrig.Zone = 9 }),
		tcp + " --reply-zone 8":                 tcpFlow(func(f *conntrack.Flow) { f.TupleReply.Zone = 8 }),
		"-I -t 010 -p 06 -r 192.0.2.2 -q 192.0.2.1 --reply-port-src 02 --reply-port-dst 1":             tcpFlow(func(*conntrack.Flow) {}),
		"-I -t 10 -p 0x6 -r 192.0.2.2 -q 192.0.2.1 --sport 1 --dport 2":                                tcpFlow(func(*conntrack.Flow) {}),
		"-I -t 10 -p tcp -r 192.0.2.2 -q 192.0.2.1 --reply-port-src 2 --reply-port-dst 1 -n 192.0.2.1": tcpFlow(func(*conntrack.Flow) {}),
		"-I -p gre -s 192.0.2.1 -d 192.0.2.2 --orig-key-src 0x10 --dstkey 021 --reply-key-src 3": tcpFlow(func(f *conntrack.Flow) {
			f.Timeout = 0
			f.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: conntrack.ProtocolGRE, SourcePort: 16, DestinationPort: 17}
			f.TupleReply.Proto = conntrack.ProtoTuple{Protocol: conntrack.ProtocolGRE, SourcePort: 3, DestinationPort: 16}
			f.Status.Value = nat | conntrack.StatusDstNAT
		}),
		"-I -t 10 -r 192.0.2.2 -q 192.0.2.1 -p icmp --icmp-type 8 --icmp-code 0": tcpFlow(func(f *conntrack.Flow) {
			f.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: conntrack.ProtocolICMP, ICMPv4: true, ICMPType: 8}
			f.TupleReply = f.TupleOrig.Reverse()
		}),
		"-I -t 10 -s 192.0.2.1 -d 192.0.2.2 -p igmp": tcpFlow(func(f *conntrack.Flow) {
			f.TupleOrig.Proto = conntrack.ProtoTuple{Protocol: 2}
			f.TupleReply.Proto = conntrack.ProtoTuple{Protocol: 2}
		}),
		"-I -t 10 -p sctp --orig-vtag 0 --reply-vtag 0 --state CLOSED -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2": tcpFlow(func(f *conntrack.Flow) {
			f.TupleOrig.Proto.Protocol, f.TupleReply.Proto.Protocol = conntrack.ProtocolSCTP, conntrack.ProtocolSCTP
			f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: conntrack.SCTPStateClosed}
		}),
	} {
		c := parseCommand(t, line)
		require.Equal(t, want, c.Flow, line)
		require.Equal(t, cttext.OpCreate, c.Op, line)
		require.Zero(t, c.Filter, line)
	}

	c := parseCommand(t, "-I -t 10 -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1 --dport 2 -g [2001:db8::3]:80")
	require.Equal(t, netip.MustParseAddrPort("[2001:db8::3]:80"), c.Flow.Server())
}

// TestCommandOps asserts the Op of each command.
func TestCommandOps(t *testing.T) {
	t.Parallel()
	const key = " -p 99 -s 192.0.2.1 -d 192.0.2.2"
	for line, want := range map[string]cttext.Op{
		"-I": cttext.OpCreate, "--create": cttext.OpCreate, "-A": cttext.OpAdd, "--add": cttext.OpAdd,
		"-U": cttext.OpUpdate, "--update": cttext.OpUpdate, "-D": cttext.OpDelete, "--delete": cttext.OpDelete,
		"-G": cttext.OpGet, "--get": cttext.OpGet, "-L": cttext.OpList, "--dump": cttext.OpList,
	} {
		for _, line := range []string{line + key, "conntrack " + line + " conntrack" + key, key + " " + line} {
			c := parseCommand(t, line)
			require.Equal(t, want, c.Op, line)
			require.Equal(t, want, parseCommand(t, c.Op.String()+key).Op)
		}
	}
	require.Equal(t, "unknown", cttext.Op(0).String())
	require.Equal(t, "unknown", cttext.Op(99).String())
}

// TestCommandConditions asserts that every option of -D, -L and -G is a
// condition, as are those of -U that find a flow.
func TestCommandConditions(t *testing.T) {
	t.Parallel()
	zone := uint16(5)
	base := func() conntrack.Flow {
		return tcpFlow(func(f *conntrack.Flow) {
			f.ID, f.Mark, f.Zone, f.Timeout = 8, 7, zone, 300
			f.Status.Value = conntrack.StatusConfirmed | conntrack.StatusSeenReply | conntrack.StatusDstNAT | conntrack.StatusNATDoneMask
			f.TupleReply.IP.SourceAddress, f.TupleReply.Proto.SourcePort = public, 80
			f.ProtoInfo.TCP = tcpState(conntrack.TCPStateEstablished)
			f.SetLabel(0)
			f.SetLabel(127)
		})
	}
	for _, tt := range []struct {
		options  string
		met, not string // values that match base, and values that do not
		ops      string
	}{
		{"-s", "192.0.2.1", "192.0.2.2", "UDL"},
		{"-s", "192.0.2.77/24", "192.0.3.0/24", "UDL"},
		{"-d", "192.0.2.2", "192.0.2.1", "UDL"},
		{"-d", "192.0.2.2/32", "192.0.2.4/31", "UDL"},
		{"-s 192.0.9.1 --mask-src", "255.255.0.255", "255.255.255.255", "UDL"},
		{"-d 192.0.0.0 --mask-dst", "255.255.0.0", "255.255.255.0", "UDL"},
		{"-r", "198.51.100.1", "192.0.2.2", "UDL"},
		{"-q", "192.0.2.1", "192.0.2.2", "UDL"},
		{"-p", "tcp", "udp", "UDL"},
		{"-p", "06", "0", "UDL"},
		{"-p tcp --sport", "1", "0", "UDL"},
		{"-p tcp --orig-port-dst", "02", "80", "UDL"},
		{"-p tcp --reply-port-src", "80", "0", "UDL"},
		{"-p tcp --reply-port-dst", "1", "2", "UDL"},
		{"-p tcp --state", "ESTABLISHED", "CLOSE", "DL"},
		{"-f", "ipv4", "ipv6", "UDL"},
		{"-m", "7", "8", "DL"},
		{"-m", "07/0xff", "0", "DL"},
		{"-m", "1/1", "0/1", "DL"},
		{"-u", "SEEN_REPLY", "ASSURED", "DL"},
		{"-u", "!ASSURED", "!SEEN_REPLY", "DL"},
		{"-u", "UNSET", "UNREPLIED", "DL"},
		{"-w", "5", "0", "DL"},
		{"--orig-zone", "0", "5", "DL"},
		{"--reply-zone", "0", "5", "DL"},
		{"-i", "010", "8010", "UD"},
		{"-t", "300", "301", "D"},
		{"-l", "zero", "thir-teen", "UDL"},
		{"-l zero -l", "last", `"a  b"`, "UDL"},
		{"-g", "198.51.100.1", "192.0.2.2", "UDL"},
		{"-g", "198.51.100.1:80", "198.51.100.1:81", "UDL"},
		{"-g", "", "192.0.2.1:80", "UDL"},
		{"-j", "", "192.0.2.1:80", "L"},
		{"-j", "198.51.100.1", "192.0.2.1", "L"},
	} {
		for _, op := range tt.ops {
			f := base()
			met, not := parseCommand(t, "-"+string(op)+" "+tt.options+" "+tt.met), parseCommand(t, "-"+string(op)+" "+tt.options+" "+tt.not)
			require.True(t, met.Match(&f), "-%c %s %s", op, tt.options, tt.met)
			require.True(t, met.Filter.Match(&f), "-%c %s %s", op, tt.options, tt.met)
			require.False(t, not.Match(&f), "-%c %s %s", op, tt.options, tt.not)
		}
	}
	f := base()
	for _, line := range []string{"-D -n", "-L -n", "-U -n"} {
		c := parseCommand(t, line)
		require.False(t, c.Match(&f), line)
	}
	none := parseCommand(t, "-D")
	require.Zero(t, none.Filter)
	require.True(t, none.Match(&f))

	// Filter has every condition that it can express.
	c := parseCommand(t, "-D -s 2001:db8::/32 -d 2001:db8::2 -p udp --sport 0 -m 7/0xf -u ASSURED,UNREPLIED -w 5 --mask-dst ffff::")
	require.Equal(t, conntrack.Filter{
		Family: netfilter.ProtoIPv6,
		Mark:   7, Mask: 15,
		Status: conntrack.StatusAssured, StatusMask: conntrack.StatusAssured | conntrack.StatusSeenReply,
		Zone:            &zone,
		Orig:            conntrack.Tuple{Proto: conntrack.ProtoTuple{Protocol: conntrack.ProtocolUDP}},
		OrigZero:        conntrack.TupleFields{SourcePort: true},
		OrigSource:      netip.MustParsePrefix("2001:db8::/32"),
		OrigDestination: netip.MustParsePrefix("2001::/16"),
	}, c.Filter)
}

// TestCommandGet asserts that -G has a key and its other options as conditions.
func TestCommandGet(t *testing.T) {
	t.Parallel()
	f := tcpFlow(func(f *conntrack.Flow) { f.ProtoInfo.TCP, f.ID = tcpState(conntrack.TCPStateClose), 9 })
	for line, want := range map[string]struct {
		key conntrack.Flow
		met bool
	}{
		"-G -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2":                          {conntrack.Flow{TupleOrig: f.TupleOrig}, true},
		"-G -p tcp -r 192.0.2.2 -q 192.0.2.1 --reply-port-src 2 --reply-port-dst 1":        {conntrack.Flow{TupleReply: f.TupleReply}, true},
		"-G -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 -i 9 --state CLOSE -o id": {conntrack.Flow{TupleOrig: f.TupleOrig}, true},
		"-G -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 -i 10":                    {conntrack.Flow{TupleOrig: f.TupleOrig}, false},
		"-G -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 --state CLOSE_WAIT":       {conntrack.Flow{TupleOrig: f.TupleOrig}, false},
		"-G -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 -l zero":                  {conntrack.Flow{TupleOrig: f.TupleOrig}, false},
		"-G -p tcp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 -r 192.0.2.9":             {conntrack.Flow{TupleOrig: f.TupleOrig}, false},
	} {
		c := parseCommand(t, line)
		require.Equal(t, want.key, c.Flow, line)
		require.Equal(t, want.met, c.Match(&f), line)
	}
}

// TestCommandChange asserts what -U changes in a flow.
func TestCommandChange(t *testing.T) {
	t.Parallel()
	const all = 1<<32 - 1
	f := tcpFlow(func(f *conntrack.Flow) {
		f.Mark, f.Status.Value = 7, conntrack.StatusConfirmed|conntrack.StatusSeenReply
		f.ProtoInfo.TCP = tcpState(conntrack.TCPStateEstablished)
		f.SetLabel(0)
		f.LabelsMask = nil
	})
	for line, want := range map[string]conntrack.Flow{
		"-U -m 0":                  {MarkMask: all},
		"-U -m 010":                {Mark: 8, MarkMask: all},
		"-U -m 0/1":                {MarkMask: 1},
		"-U -m 8/0xf":              {Mark: 8, MarkMask: 15},
		"-U -m 8/0":                {Mark: 15, MarkMask: all},
		"-U -m 3/1":                {Mark: 5, MarkMask: all}, // 7 &^ 1 ^ 3
		"-U -t 11":                 {Timeout: 11},
		"-U -u ASSURED":            {Status: conntrack.Status{Value: conntrack.StatusConfirmed | conntrack.StatusSeenReply | conntrack.StatusAssured}},
		"-U -p tcp --state CLOSE":  {ProtoInfo: conntrack.ProtoInfo{TCP: tcpState(conntrack.TCPStateClose)}},
		"-U --label-del":           {Labels: make([]byte, 16)},
		"-U -s 192.0.2.1 -t 11":    {Timeout: 11},
		"-U --label-add last":      tcpLabels(func(f *conntrack.Flow) { f.SetLabel(127) }),
		"-U --label-del zero,last": tcpLabels(func(f *conntrack.Flow) { f.ClearLabel(0); f.ClearLabel(127) }),
		"-U --label-add zero,last --label-del thir-teen": tcpLabels(func(f *conntrack.Flow) { f.SetLabel(0); f.SetLabel(127); f.ClearLabel(14) }),
	} {
		c := parseCommand(t, line)
		change, ok := c.Change(&f)
		require.True(t, ok, line)
		require.Equal(t, want, change, line)
	}
	for _, line := range []string{
		"-U", "-U -m 7", "-U -m 0/8", "-U -m 0/0", "-U -t 10", "-U -u SEEN_REPLY", "-U -u UNSET", "-U -p tcp --state ESTABLISHED",
		"-U --label-add zero", "-U --label-del last", "-U -s 192.0.2.2 -m 8", "-U -p udp -m 8", "-D -t 11", "-U -i 9 -m 8", "-U -l last -m 8",
	} {
		c := parseCommand(t, line)
		_, ok := c.Change(&f)
		require.False(t, ok, line)
	}

	// The kernel replaces either all of SCTP's state or nothing.
	sctp := tcpFlow(func(f *conntrack.Flow) {
		f.TupleOrig.Proto.Protocol = conntrack.ProtocolSCTP
		f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: conntrack.SCTPStateClosed, VTagOriginal: 5, VTagReply: 6}
	})
	c := parseCommand(t, "-U -p sctp --state ESTABLISHED")
	change, ok := c.Change(&sctp)
	require.True(t, ok)
	require.Equal(t, &conntrack.ProtoInfoSCTP{State: conntrack.SCTPStateEstablished, VTagOriginal: 5, VTagReply: 6}, change.ProtoInfo.SCTP)
}

func tcpLabels(change func(f *conntrack.Flow)) (f conntrack.Flow) {
	change(&f)
	return f
}

// TestCommandErrors asserts that commands are refused that conntrack(8)
// refuses, and a few that it should refuse.
func TestCommandErrors(t *testing.T) {
	t.Parallel()
	const tcp = "-I -t 30 -s 1.1.1.1 -d 2.2.2.2 -p tcp --sport 1 --dport 2 "
	for line, want := range map[string]string{
		"":                              "no command",
		"conntrack":                     "no command",
		"# a comment":                   "unknown word",
		"-p tcp":                        "no command",
		"-I -I":                         `word 2, "-I": a second command`,
		"-D expect":                     `word 2, "expect": unknown word`,
		"-F":                            `word 1, "-F": no option`,
		"-D -s":                         `word 2, "-s": its value is missing`,
		"-D -s 1.1.1.1 -s 1.1.1.1":      `word 4, "-s": there already`,
		"-D -s '1.1.1.1":                "a quote that is not closed",
		"-D -m 08":                      `"-m 08": not a number`,
		"-D -m 0b1":                     `"-m 0b1": not a number`,
		"-D -m 1_0":                     `"-m 1_0": not a number`,
		"-D -m 4294967296":              "not a number of 32 bits",
		"-D -m 1/":                      "not a number",
		"-D -p tcp --sport 0x10":        `"--sport 0x10": not a number`,
		"-D -p tcp --sport -1":          "not a number",
		"-D -t 0x10":                    "not a number",
		"-D -p 256":                     "unknown protocol",
		"-D -p 20foo":                   "unknown protocol",
		"-D -p -10":                     "unknown protocol",
		"-D -w 65536":                   "not a number of 16 bits",
		"-D -f ipv5":                    "no family",
		"-D -s ::1 -d 2.2.2.2":          `word 4, "-d 2.2.2.2": IPv4 and IPv6 in one line`,
		"-D -s 1.1.1.1 -f ipv6":         `"-f ipv6": IPv4 and IPv6 in one line`,
		"-D -s 1.1.1.1/33":              "no length of a prefix",
		"-D -s 1.1.1.1/":                "no length of a prefix",
		"-D -r 1.1.1.0/24":              "no address",
		"-D --mask-src 255.0.0.0":       "a mask without its address",
		"-D -s 1.1.1.1/8 --mask-src ::": "there already",
		"-D -u WHATEVER":                "unknown status flag",
		"-D -u":                         "its value is missing",
		"-D -u ASSURED,":                "unknown status flag",
		"-D --sport 1 -p tcp":           `"--sport": no option of conntrack(8) about flows, or not of that protocol, or before -p`,
		"-D -p udp --state ESTABLISHED": `"--state": no option`,
		"-D -p tcp --state OPEN":        "no state of that protocol",
		"-D -g 1.1.1.1:":                "no port",
		"-D -g 1.1.1.1::":               "no address",
		"-D -g 1.1.1.1:80:80":           "no address",
		"-D -g 1.1.1.1:65536":           "no port",
		"-D -g [::1]":                   "no port",
		"-D -g [::1]:":                  "no port",
		"-D -g []:80":                   "no address",
		"-D -g [::1]:80:80":             "no port",
		"-L -j -g":                      "--any-nat does not go with",
		"-D -l one":                     "unknown label",
		"-U -p sctp --orig-vtag 1":      "--state is missing",
		"-U -w 5":                       "-w does not go with -U",
		"-G -p tcp -m 5":                "-m does not go with -G",
		"-G -p tcp":                     "original direction are not complete",
		"-G -s 1.1.1.1 -d 2.2.2.2":      "original direction are not complete",
		"-L -t 5":                       "-t does not go with -L",
		"-U -u !ASSURED":                "flags can be set, and not cleared",
		tcp + "-u UNREPLIED":            "flags can be set, and not cleared",
		tcp + "-l zero":                 "-l does not go with -I",
		tcp + "-g":                      "what to translate into is missing",
		tcp + "-c 9":                    `word 14, "-c": no option of conntrack(8) about flows`,
		tcp + "--whatever=9":            `word 14, "--whatever=9": no option of conntrack(8) about flows`,
		tcp + "whatever":                `word 14, "whatever": unknown word`,
		"-I -s 1.1.1.1 -d 2.2.2.2 -p 99 -n 3.3.3.3:80":                                           "no ports in that protocol",
		"-I -s 1.1.1.1 -d 2.2.2.2 -p icmp -g 3.3.3.3:80 --icmp-type 8 --icmp-code 0 --icmp-id 1": "no ports in that protocol",
		"-I -s 1.1.1.1 -p tcp --sport 1 --dport 2":                                               "original direction are not complete",
		"-I -s 1.1.1.1 -d 2.2.2.2":                                                               "original direction are not complete",
		"-I -s 1.1.1.1 -d 2.2.2.2 -p tcp --sport 1":                                              "original direction are not complete",
		"-I -s 1.1.1.1 -d 2.2.2.2 -p icmp":                                                       "original direction are not complete",
		"-D -s 1.1.1.1\n-D -s 2.2.2.2":                                                           "more than one line",
	} {
		c, err := withLabels.ParseCommand(line)
		require.ErrorContains(t, err, want, line)
		require.ErrorContains(t, err, "cttext: parse command: ", line)
		require.Zero(t, c)
	}
	_, err := plain.ParseCommand(tcp + "--label-add one")
	require.ErrorContains(t, err, `word 14, "--label-add one": Options.Labels is needed`)
}
