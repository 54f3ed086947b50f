package conntrack_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
)

func TestFlowString(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	flow := func(protocol uint8, change func(f *conntrack.Flow)) conntrack.Flow {
		f := conntrack.NewFlow(protocol, conntrack.StatusSeenReply|conntrack.StatusAssured, a, b, 40000, 443, 300, 0)
		change(&f)
		return f
	}
	for want, f := range map[string]conntrack.Flow{
		"udp 192.0.2.1:40000 > 192.0.2.2:443 SEEN_REPLY|ASSURED 300s": flow(17, func(*conntrack.Flow) {}),
		"tcp 192.0.2.1:40000 > 192.0.2.2:443 CLOSE_WAIT NONE 0s": flow(6, func(f *conntrack.Flow) {
			f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateCloseWait}
			f.Status.Value, f.Timeout = 0, 0
		}),
		"sctp 192.0.2.1:40000 > 192.0.2.2:443 COOKIE_WAIT SEEN_REPLY|ASSURED 300s": flow(132, func(f *conntrack.Flow) {
			f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: conntrack.SCTPStateCookieWait}
		}),
		"dccp 192.0.2.1:40000 > 192.0.2.2:443 OPEN SEEN_REPLY|ASSURED 300s": flow(33, func(f *conntrack.Flow) {
			f.ProtoInfo.DCCP = &conntrack.ProtoInfoDCCP{State: 4}
		}),
		"udp 192.0.2.1:40000 > 192.0.2.2:443 SEEN_REPLY|ASSURED 300s translated to 192.0.2.1:40000 > 198.51.100.7:8443": flow(17, func(f *conntrack.Flow) {
			f.TupleReply.IP.SourceAddress, f.TupleReply.Proto.SourcePort = netip.MustParseAddr("198.51.100.7"), 8443
		}),
		"udp 192.0.2.1:40000 > 192.0.2.2:443 SEEN_REPLY|ASSURED 300s 3+2 packets 180+0 bytes mark 0x10 zone 5": flow(17, func(f *conntrack.Flow) {
			f.CountersOrig, f.CountersReply.Packets = conntrack.Counter{Packets: 3, Bytes: 180}, 2
			f.Mark, f.TupleReply.Zone = 16, 5
		}),
		"udp 192.0.2.1:40000 > 192.0.2.2:443 SEEN_REPLY|ASSURED 300s 0+0 packets 0+0 bytes": flow(17, func(f *conntrack.Flow) { f.CountedZero = true }),
	} {
		require.Equal(t, want, f.String())
	}
	require.NotPanics(t, func() { _ = conntrack.Flow{}.String() })
}

func TestExpectString(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	master := conntrack.NewFlow(6, 0, a, b, 40000, 21, 0, 0).TupleOrig
	ex := conntrack.Expect{
		Timeout: 299, TupleMaster: master, Tuple: conntrack.NewFlow(6, 0, b, a, 0, 5000, 0, 0).TupleOrig, HelpName: "ftp",
	}
	require.Equal(t, "tcp 192.0.2.2:0 > 192.0.2.1:5000 ftp 299s by tcp 192.0.2.1:40000 > 192.0.2.2:21", ex.String())
	ex.Flags = conntrack.ExpectPermanent | conntrack.ExpectInactive
	require.Equal(t, "tcp 192.0.2.2:0 > 192.0.2.1:5000 ftp 299s PERMANENT|INACTIVE by tcp 192.0.2.1:40000 > 192.0.2.2:21", ex.String())
}
