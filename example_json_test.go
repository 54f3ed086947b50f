package conntrack_test

import (
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"os"

	"github.com/ti-mo/conntrack"
)

// forwardedWeb is a connection from a network behind this machine, whose address
// its packets get.
func forwardedWeb() conntrack.Flow {
	f := conntrack.NewFlow(conntrack.ProtocolTCP, conntrack.StatusSeenReply|conntrack.StatusAssured,
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("198.51.100.2"), 40000, 443, 300, 0)
	f.TupleReply.IP.DestinationAddress = netip.MustParseAddr("192.0.2.1")
	f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateEstablished}
	f.CountersOrig = conntrack.Counter{Packets: 5, Bytes: 620}
	f.CountersReply = conntrack.Counter{Direction: true, Packets: 4, Bytes: 5000}
	return f
}

func ExampleFlow_MarshalJSON() {
	b, err := json.MarshalIndent(forwardedWeb(), "", "  ")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b))
	// Output:
	// {
	//   "status": [
	//     "SEEN_REPLY",
	//     "ASSURED"
	//   ],
	//   "timeout": 300,
	//   "tcp": {
	//     "state": "ESTABLISHED"
	//   },
	//   "orig": {
	//     "protocol": "tcp",
	//     "src": "10.0.0.1",
	//     "sport": 40000,
	//     "dst": "198.51.100.2",
	//     "dport": 443,
	//     "packets": 5,
	//     "bytes": 620
	//   },
	//   "reply": {
	//     "protocol": "tcp",
	//     "src": "198.51.100.2",
	//     "sport": 443,
	//     "dst": "192.0.2.1",
	//     "dport": 40000,
	//     "packets": 4,
	//     "bytes": 5000
	//   }
	// }
}

func ExampleFlow_UnmarshalJSON() {
	var f conntrack.Flow
	err := json.Unmarshal([]byte(`{
		"timeout": 30,
		"orig": {"protocol": "udp", "src": "192.0.2.1", "sport": 5353, "dst": "192.0.2.2", "dport": 53}
	}`), &f)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.TupleOrig.FiveTuple())

	fmt.Println(json.Unmarshal([]byte(`{"orig": {"protocol": "upd"}}`), &f))
	// Output:
	// udp 192.0.2.1:5353 > 192.0.2.2:53
	// conntrack: JSON field orig.protocol is "upd": unknown protocol "upd"
}

func ExampleEvent_MarshalJSON() {
	b, err := json.Marshal(conntrack.Event{
		Type: conntrack.EventDestroy,
		Flow: &conntrack.Flow{ID: 42, Status: conntrack.Status{Value: conntrack.StatusDying}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b))
	// Output:
	// {"type":"destroy","flow":{"id":42,"status":["DYING"]}}
}

func ExampleFlow_LogValue() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	f := conntrack.NewFlow(conntrack.ProtocolUDP, conntrack.StatusConfirmed,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 5353, 53, 30, 0)
	logger.Info("stale", "flow", &f)
	// Output:
	// level=INFO msg=stale flow.status=[CONFIRMED] flow.timeout=30 flow.orig.protocol=udp flow.orig.src=192.0.2.1 flow.orig.sport=5353 flow.orig.dst=192.0.2.2 flow.orig.dport=53
}

func ExampleFlow_Translated() {
	f := forwardedWeb()
	if f.Translated() {
		fmt.Println(f.Client(), "dialed", f.Dialed())
		fmt.Println(f.Server(), "answers", f.MappedClient())
	}
	// Output:
	// 10.0.0.1:40000 dialed 198.51.100.2:443
	// 198.51.100.2:443 answers 192.0.2.1:40000
}

// Bytes by direction, as a flow exporter counts them.
func ExampleFlow_Bound() {
	local := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	bytes := make(map[conntrack.Bound]uint64)
	for _, f := range []conntrack.Flow{forwardedWeb(), forwardedWeb()} {
		bytes[f.Bound(local)] += f.CountersOrig.Bytes + f.CountersReply.Bytes
	}
	fmt.Println(bytes)
	// Output: map[outbound:11240]
}

func ExampleTuple_FiveTuple() {
	seen := make(map[conntrack.FiveTuple]bool)
	f := forwardedWeb()
	seen[f.TupleOrig.FiveTuple()] = true

	packet := conntrack.FiveTuple{
		Protocol:    conntrack.ProtocolTCP,
		Source:      netip.MustParseAddrPort("10.0.0.1:40000"),
		Destination: netip.MustParseAddrPort("198.51.100.2:443"),
	}
	fmt.Println(packet, seen[packet])
	// Output: tcp 10.0.0.1:40000 > 198.51.100.2:443 true
}
