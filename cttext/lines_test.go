package cttext_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
)

// conntrackLines are lines that conntrack(8) 1.4.7 printed. For what no current
// kernel sends, conntrack(8) was given messages in the kernel's place.
var conntrackLines = []struct {
	name    string
	options cttext.Options
	line    string
}{
	{"TCP", cttext.Options{}, "tcp      6 999 SYN_SENT2 src=1.1.1.1 dst=2.2.2.2 sport=3 dport=2 packets=0 bytes=0 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=3 packets=0 bytes=0 mark=0 use=1"},
	{"assured", cttext.Options{ID: true}, "tcp      6 999 ESTABLISHED src=1.1.1.1 dst=2.2.2.2 sport=30 dport=2 packets=9 bytes=8 src=3.3.3.3 dst=4.4.4.4 sport=80 dport=99 packets=7 bytes=6 [ASSURED] mark=5 use=1 id=3386552616"},
	{"extended", cttext.Options{Extended: true}, "ipv4     2 udplite  136 999 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0 use=1"},
	{"extended IPv6", cttext.Options{Extended: true}, "ipv6     10 icmpv6   58 999 src=fd00::1 dst=fd00::2 type=128 code=0 id=777 [UNREPLIED] src=fd00::2 dst=fd00::1 type=129 code=0 id=777 mark=0 use=1 "},
	{"ICMP", cttext.Options{ID: true}, "icmp     1 999 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=777 src=2.2.2.2 dst=1.1.1.1 type=0 code=0 id=777 mark=0 use=1 id=504875445"},
	{"ICMP in IPv6", cttext.Options{}, "icmp     1 9 src=::1 dst=::2 type=8 code=0 id=3 [UNREPLIED] src=::2 dst=::1 type=0 code=0 id=3 mark=0"},
	{"ICMPv6 in IPv4", cttext.Options{}, "icmpv6   58 9 src=1.1.1.1 dst=2.2.2.2 type=128 code=0 id=5 src=2.2.2.2 dst=1.1.1.1 type=129 code=0 id=6 [ASSURED] mark=0"},
	{"GRE", cttext.Options{}, "gre      47 999 src=1.1.1.1 dst=2.2.2.2 srckey=0x11 dstkey=0xabc [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 srckey=0xabc dstkey=0x11 mark=0 use=1"},
	{"GRE without keys", cttext.Options{}, "gre      47 9 src=1.1.1.1 dst=2.2.2.2 srckey=0x0 dstkey=0xffff src=2.2.2.2 dst=1.1.1.1 srckey=0xffff dstkey=0x0 mark=0"},
	{"SCTP", cttext.Options{}, "sctp     132 999 COOKIE_ECHOED src=fd00::1 dst=fd00::2 sport=1 dport=2 [UNREPLIED] src=fd00::2 dst=fd00::1 sport=2 dport=1 mark=0 use=1"},
	{"SCTP heartbeat", cttext.Options{}, "sctp     132 9 HEARTBEAT_ACKED src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 [ASSURED] mark=0"},
	{"DCCP", cttext.Options{}, "dccp     33 9 PARTOPEN src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 [ASSURED] mark=0"},
	{"no name", cttext.Options{}, "unknown  253 999 src=1.1.1.1 dst=2.2.2.2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 mark=0 use=1"},
	{"IGMP", cttext.Options{}, "unknown  2 999 src=1.1.1.1 dst=2.2.2.2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 mark=0 use=1"},
	{"protocol 0", cttext.Options{}, "unknown  0 1 src=1.1.1.1 dst=2.2.2.2 src=2.2.2.2 dst=1.1.1.1 [ASSURED] mark=0"},
	{"protocol 0 extended", cttext.Options{Extended: true}, "ipv4     2 unknown  0 1 src=1.1.1.1 dst=2.2.2.2 src=2.2.2.2 dst=1.1.1.1 [ASSURED] mark=0"},
	{"zone", cttext.Options{}, "udp      17 999 src=1.1.1.1 dst=2.2.2.2 sport=3 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=3 mark=0 zone=7 use=1"},
	{"zones", cttext.Options{}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 zone-orig=5 packets=1 bytes=1 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 zone-reply=6 packets=1 bytes=1 mark=0"},
	{"offloaded", cttext.Options{}, "udp      17 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 [OFFLOAD] mark=0 use=2"},
	{"offloaded to hardware", cttext.Options{}, "tcp      6 ESTABLISHED src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 [HW_OFFLOAD] mark=0 use=2"},
	{"timeout of 0", cttext.Options{}, "udp      17 0 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0"},
	{"large counters", cttext.Options{}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 packets=9223372036854775808 bytes=18446744073709551615 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 packets=0 bytes=0 mark=4294967295"},
	{"all", cttext.Options{ID: true}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 [ASSURED] mark=3 secctx=a_b:c zone=9 delta-time=5 helper=ftp use=7 id=9"},
	{"began", cttext.Options{KTimestamp: true}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0 delta-time=54 [start=Sat Aug  2 09:00:06 2025] use=1"},
	{"began in the future", cttext.Options{KTimestamp: true}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0 delta-time=18446744073709551611 [start=Sat Aug  2 09:01:05 2025] use=1"},
	{"ended", cttext.Options{KTimestamp: true}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0 delta-time=2 [start=Sat Aug  2 09:00:00 2025] [stop=Sat Aug  2 09:00:02 2025]"},
	{"labels", cttext.Options{ID: true, Labels: textLabels}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0 helper=ftp use=1 id=5 labels=zero,thir-teen extra,last"},
	{"label with blanks", cttext.Options{Labels: textLabels}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0 use=1 labels=a  b,last"},
	{"no named label", cttext.Options{Labels: textLabels}, "udp      17 9 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 mark=0 use=1 labels"},
	{"IPv4 in IPv6", cttext.Options{}, "udp      17 9 src=::0.1.0.2 dst=::ffff:1.2.3.4 sport=3 dport=8 src=::ffff:1.2.3.4 dst=::0.1.0.2 sport=8 dport=3 mark=0"},
	{"IPv6", cttext.Options{}, "udp      17 9 src=1:0:0:2::3 dst=::ffff:0:102:304 sport=3 dport=8 [UNREPLIED] src=64:ff9b::102:304 dst=1:0:2:3:4:5:6:7 sport=8 dport=3 mark=0"},

	{"save", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p tcp --sport 3 --dport 2 --reply-port-src 2 --reply-port-dst 3 --state SYN_SENT2"},
	{"save NAT", cttext.Options{Save: true}, "-A -t 999 -u SEEN_REPLY,ASSURED -s 1.1.1.1 -d 2.2.2.2 -g 3.3.3.3 -n 4.4.4.4 -p tcp --sport 30 --dport 2 --reply-port-src 80 --reply-port-dst 99 --state ESTABLISHED"},
	{"save source NAT", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -n 3.3.3.3 -p tcp --sport 32 --dport 2 --reply-port-src 2 --reply-port-dst 90 --state ESTABLISHED"},
	{"save destination NAT", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s fd00::1 -d fd00::2 -g fd00::3 -q fd00::1 -p udp --sport 33 --dport 2 --reply-port-src 90 --reply-port-dst 33"},
	{"save NAT of ports", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p udp --sport 33 --dport 2 --reply-port-src 90 --reply-port-dst 33"},
	{"save no NAT", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 3.3.3.3 -q 1.1.1.1 -p udp --sport 33 --dport 2 --reply-port-src 9 --reply-port-dst 33"},
	{"save ICMP", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 777"},
	{"save ICMP NAT", cttext.Options{Save: true}, "-A -t 9 -u SEEN_REPLY,ASSURED -s 1.1.1.1 -d 2.2.2.2 -g 2.2.2.4 -n 1.1.1.5 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 5"},
	{"save ICMPv6", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s fd00::1 -d fd00::2 -r fd00::2 -q fd00::1 -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 777"},
	{"save GRE", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p gre --srckey 17 --dstkey 2748 --reply-key-src 2748 --reply-key-dst 17"},
	{"save SCTP", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s fd00::1 -d fd00::2 -r fd00::2 -q fd00::1 -p sctp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1 --state COOKIE_ECHOED --orig-vtag 5 --reply-vtag 6"},
	{"save SCTP heartbeat", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p sctp --sport 32 --dport 2 --reply-port-src 2 --reply-port-dst 32 --state (null) --orig-vtag 4294967295 --reply-vtag 0"},
	{"save UDP-Lite of Linux 7.2", cttext.Options{Save: true}, "-A -t 599 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p udplite"},
	{"save DCCP", cttext.Options{Save: true}, "-A -t 9 -u SEEN_REPLY,ASSURED -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p dccp --sport 5 --dport 2 --reply-port-src 2 --reply-port-dst 5 --state OPEN --role server"},
	{"save no name", cttext.Options{Save: true}, "-A -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p 253"},
	{"save status", cttext.Options{Save: true}, "-A -t 0 -u EXPECTED,SEEN_REPLY,ASSURED,FIXED_TIMEOUT -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p udp --sport 30000 --dport 2 --reply-port-src 2 --reply-port-dst 30000"},
	{"save offloaded", cttext.Options{Save: true}, "-A -u SEEN_REPLY,ASSURED -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p udp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1"},
	{"save zones", cttext.Options{Save: true}, "-A -t 9 -u SEEN_REPLY,ASSURED -w 7 --orig-zone 5 --reply-zone 6 -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p udp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1"},
}

var textLabels = cttext.LabelNames{0: "zero", 1: "a  b", 13: "thir-teen extra", 14: "thir-teen", 127: "last"}

// printedAt is when conntrackLines were printed.
var printedAt = time.Date(2025, time.August, 2, 9, 1, 0, 0, time.UTC)

func TestConntrackLines(t *testing.T) {
	t.Parallel()
	for _, tt := range conntrackLines {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.options
			o.Now, o.Location = printedAt, time.UTC
			f, err := o.ParseFlow(tt.line)
			require.NoError(t, err)
			require.Equal(t, strings.TrimSpace(tt.line), o.Flow(&f))

			// Other programs that follow events print such lines too.
			for event, prefix := range map[string]string{"[NEW] ": "", "    [NEW] ": "[1795420208.025837]\t", "[UPDATE] ": ""} {
				again, err := o.ParseFlow(prefix + event + tt.line + " [USERSPACE] portid=4294967295 progname=a b")
				if o.Save {
					continue
				}
				require.NoError(t, err)
				again.Timestamp = f.Timestamp
				require.Equal(t, f, again)
			}
		})
	}
}

var conntrackEvents = []struct {
	name    string
	options cttext.Options
	line    string
}{
	{"new", cttext.Options{}, "    [NEW] tcp      6 1000 ESTABLISHED src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 [ASSURED] mark=5"},
	{"new without mark", cttext.Options{}, "    [NEW] udp      17 30 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1"},
	{"update to mark 0", cttext.Options{Extended: true}, " [UPDATE] ipv4     2 tcp      6 999 SYN_SENT2 src=1.1.1.1 dst=2.2.2.2 sport=3 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=3 mark=0"},
	{"destroy", cttext.Options{}, "[DESTROY] udp      17 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 packets=1 bytes=28 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 packets=0 bytes=0 delta-time=30"},
	{"destroy with times", cttext.Options{KTimestamp: true, ID: true}, "[DESTROY] tcp      6 999 CLOSE src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1 delta-time=2 [start=Sat Aug  2 09:00:00 2025] [stop=Sat Aug  2 09:00:02 2025] id=7"},
	{"time", cttext.Options{Timestamp: true}, "[1795420208.025837]\t    [NEW] udp      17 30 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1"},
	{"early time", cttext.Options{Timestamp: true}, "[00000008.000007]\t    [NEW] udp      17 30 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1"},
	{"save new", cttext.Options{Save: true}, "-A -t 1000 -u SEEN_REPLY,ASSURED -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p tcp --sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1 --state ESTABLISHED"},
	{"save update", cttext.Options{Save: true}, "-U -t 999 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -g 3.3.3.3 -q 1.1.1.1 -p tcp --sport 33 --dport 2 --reply-port-src 90 --reply-port-dst 33 --state ESTABLISHED"},
	{"save destroy", cttext.Options{Save: true}, "-D -u UNSET -s fd00::1 -d fd00::2 -g fd00::3 -q fd00::1 -p udp --sport 33 --dport 2 --reply-port-src 90 --reply-port-dst 33"},
	{"save destroy SCTP", cttext.Options{Save: true}, "-D -u UNSET -s fd00::1 -d fd00::2 -g fd00::3 -q fd00::1 -p sctp --sport 33 --dport 2 --reply-port-src 90 --reply-port-dst 33 --state CLOSED"},
	{"expectation", cttext.Options{}, "    [NEW] 300 proto=6 src=1.1.1.1 dst=2.2.2.2 sport=1000 dport=5000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=1000 dport=65535 master-src=1.1.1.1 master-dst=2.2.2.2 sport=1000 dport=21 class=0 helper=ftp"},
	{"expectation destroyed", cttext.Options{Timestamp: true}, "[1795420210.26624 ]\t[DESTROY] 299 proto=6 src=1.1.1.1 dst=2.2.2.2 sport=1000 dport=5003 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=1000 dport=65535 master-src=1.1.1.1 master-dst=2.2.2.2 sport=1000 dport=21 PERMANENT,INACTIVE class=0 helper=ftp"},
}

func TestConntrackEvents(t *testing.T) {
	t.Parallel()
	for _, tt := range conntrackEvents {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.options
			o.Location = time.UTC
			e, err := o.ParseEvent(tt.line)
			require.NoError(t, err)
			require.Equal(t, tt.line, o.Event(&e))

			again, err := o.ParseEvent(tt.line + " [USERSPACE] portid=26579 progname=a program")
			require.NoError(t, err)
			require.EqualValues(t, 26579, again.PortID)
			again.PortID = 0
			require.Equal(t, o.Event(&e), o.Event(&again))
		})
	}
}

var conntrackExpects = []string{
	"300 proto=6 src=1.1.1.1 dst=2.2.2.2 sport=0 dport=5000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=1.1.1.1 master-dst=2.2.2.2 sport=1000 dport=21 class=0 helper=ftp",
	"0 proto=6 src=1.1.1.1 dst=2.2.2.2 sport=0 dport=5000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=1.1.1.1 master-dst=2.2.2.2 sport=1000 dport=21 zone=9 PERMANENT,INACTIVE,USERSPACE class=2 helper=ftp",
	"300 proto=17 src=:: dst=::2 sport=0 dport=5000 mask-src=:: mask-dst=ffff:: sport=0 dport=65535 master-src=::1 master-dst=::2 sport=1000 dport=21 USERSPACE class=0",
	"300 proto=1 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=5 mask-src=1.1.1.1 mask-dst=2.2.2.2 type=8 code=0 id=65535 master-src=1.1.1.1 master-dst=2.2.2.2 type=8 code=0 id=5 class=0",
	"300 proto=47 src=1.1.1.1 dst=2.2.2.2 srckey=0xa dstkey=0xb mask-src=255.255.255.255 mask-dst=255.255.255.255 srckey=0xffff dstkey=0xffff master-src=1.1.1.1 master-dst=2.2.2.2 sport=1000 dport=1723 class=0 helper=pptp",
	"300 proto=99 src=0.0.0.0 dst=2.2.2.2 mask-src=0.0.0.0 mask-dst=2.2.2.2 master-src=1.1.1.1 master-dst=2.2.2.2 sport=1000 dport=21 class=0",
}

func TestConntrackExpects(t *testing.T) {
	t.Parallel()
	for _, line := range conntrackExpects {
		ex, err := cttext.Options{}.ParseExpect(line + " ")
		require.NoError(t, err)
		require.Equal(t, line, cttext.Options{}.Expect(&ex))
	}
	tcp, err := cttext.Options{}.ParseExpect(conntrackExpects[4])
	require.NoError(t, err)
	require.EqualValues(t, conntrack.ProtocolGRE, tcp.Tuple.Proto.Protocol)
	require.EqualValues(t, conntrack.ProtocolTCP, tcp.TupleMaster.Proto.Protocol)
	rtp, err := cttext.Options{}.ParseExpect(strings.Replace(conntrackExpects[2], "USERSPACE class=0", "class=1 helper=H.245", 1))
	require.NoError(t, err)
	require.EqualValues(t, conntrack.ProtocolUDP, rtp.Tuple.Proto.Protocol)
	require.EqualValues(t, conntrack.ProtocolTCP, rtp.TupleMaster.Proto.Protocol)
}
