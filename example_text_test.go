package conntrack_test

import (
	"fmt"
	"log"
	"net/netip"
	"strings"
	"time"

	"github.com/ti-mo/conntrack"
)

// A line that somebody copied from a terminal becomes a flow, which can then be
// given to Get, Update, Delete or Create.
func ExampleParseFlow() {
	f, err := conntrack.ParseFlow("tcp      6 431999 ESTABLISHED src=192.0.2.1 dst=192.0.2.2 sport=40000 dport=443 " +
		"src=192.0.2.2 dst=198.51.100.1 sport=443 dport=50000 [ASSURED] mark=7 use=1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.TupleOrig)
	fmt.Println(f.Status)
	fmt.Println(f.Text(conntrack.TextOptions{Save: true}))

	_, err = conntrack.ParseFlow("tcp 6 431999 ESTABLISHED src=192.0.2.1 dst=192.0.2.300 sport=40000 dport=443")
	fmt.Println(err)
	// Output:
	// <tcp, Src: 192.0.2.1:40000, Dst: 192.0.2.2:443>
	// SEEN_REPLY|ASSURED|CONFIRMED|SRC_NAT|SRC_NAT_DONE|DST_NAT_DONE
	// -A -t 431999 -u SEEN_REPLY,ASSURED -s 192.0.2.1 -d 192.0.2.2 -r 192.0.2.2 -n 198.51.100.1 -p tcp --sport 40000 --dport 443 --reply-port-src 443 --reply-port-dst 50000 --state ESTABLISHED
	// conntrack: parse flow: word 6, "dst=192.0.2.300": no address
}

func ExampleFlow_Text() {
	f := conntrack.NewFlow(conntrack.ProtocolUDP, conntrack.StatusConfirmed,
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), 40000, 53, 30, 0)
	f.Timestamp.Start = time.Date(2025, time.August, 2, 9, 0, 0, 5e8, time.UTC)
	names, err := conntrack.ReadLabelNames(strings.NewReader("0 dns\n1 guest\n"))
	if err != nil {
		log.Fatal(err)
	}
	f.SetLabel(1)

	fmt.Println(f.Text(conntrack.TextOptions{
		Extended:   true,
		KTimestamp: true,
		Labels:     names,
		Now:        time.Date(2025, time.August, 2, 9, 1, 0, 0, time.UTC),
		Location:   time.UTC,
	}))
	// Output:
	// ipv6     10 udp      17 30 src=2001:db8::1 dst=2001:db8::2 sport=40000 dport=53 [UNREPLIED] src=2001:db8::2 dst=2001:db8::1 sport=53 dport=40000 mark=0 delta-time=60 [start=Sat Aug  2 09:00:00 2025] labels=guest
}

// Text with all of a flow is a flow again.
func ExampleTextOptions_lossless() {
	f := conntrack.NewFlow(conntrack.ProtocolTCP, conntrack.StatusConfirmed,
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 40000, 21, 300, 0)
	f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: conntrack.TCPStateSynSent, OriginalWindowScale: 7}

	text := f.Text(conntrack.TextOptions{Lossless: true})
	fmt.Println(text)
	again, err := conntrack.ParseFlow(text)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(again.ProtoInfo.TCP.OriginalWindowScale)
	// Output:
	// tcp      6 300 SYN_SENT src=192.0.2.1 dst=192.0.2.2 sport=40000 dport=21 [UNREPLIED] src=192.0.2.2 dst=192.0.2.1 sport=21 dport=40000 mark=0 status=0x8 tcp=1,7,0,0,0
	// 7
}
