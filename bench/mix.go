package main

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// A flow is a flow of the mix. Each contender translates it into its own types
// before the measurement.
type flow struct {
	proto uint8
	// These are the original direction, and the address to which the source is
	// translated, where replies are sent. Without NAT that is the source
	// itself.
	source, destination, translated netip.AddrPort
	// id is for ICMP, which has no ports.
	id            uint16
	mark, timeout uint32
	// assured is set if traffic went both ways for a while, rather than a
	// single answer.
	assured bool
}

// These timeouts are so long that nothing expires during the benchmark.
const (
	timeoutTCP = 432000
	timeoutUDP = 7200
)

const (
	portHTTPS = 443
	portDNS   = 53
)

// A kind is a kind of flow.
type kind uint8

const (
	tcp4 kind = iota
	tcp4NAT
	tcp6
	udp4
	udp4DNS
	udp6DNS
	icmp4
	icmp6
)

// mix is the frequency of each kind, roughly that of a gateway. The kinds are
// spread so that each part of the table has the same mix.
var mix = [20]kind{
	tcp4, udp4DNS, tcp4NAT, tcp4, tcp6, udp4DNS, tcp4, icmp4, tcp4NAT, tcp4,
	udp6DNS, tcp4, udp4, tcp4NAT, udp4DNS, tcp4, tcp6, icmp6, udp4DNS, tcp4,
}

// flowAt returns the i'th flow. No two flows have a tuple in common.
func flowAt(i int) flow {
	k := mix[i%len(mix)]
	// A client has several flows at a time, from different ports.
	client, port := i/len(mix), uint16(32768+i%len(mix)*1000+i/len(mix)%1000)
	if i < busyIndices {
		client = 0
	}
	f := flow{proto: unix.IPPROTO_UDP, timeout: timeoutUDP}
	destinationPort := uint16(portHTTPS)

	switch k {
	case tcp4, tcp4NAT, tcp6:
		f.proto, f.timeout, f.assured = unix.IPPROTO_TCP, timeoutTCP, true
	case udp4DNS, udp6DNS:
		destinationPort = portDNS
	case icmp4:
		f.proto, f.id = unix.IPPROTO_ICMP, port
		port, destinationPort = 0, 0
	case icmp6:
		f.proto, f.id = unix.IPPROTO_ICMPV6, port
		port, destinationPort = 0, 0
	}

	if k == tcp6 || k == udp6DNS || k == icmp6 {
		f.source = netip.AddrPortFrom(ipv6(1, client), port)
		f.destination = netip.AddrPortFrom(ipv6(2, i%250), destinationPort)
	} else {
		f.source = netip.AddrPortFrom(ipv4(10, client), port)
		f.destination = netip.AddrPortFrom(ipv4(198, 51<<16|100<<8|i%250), destinationPort)
	}

	f.translated = f.source
	if k == tcp4NAT {
		const ports = 60000 // per public address
		f.translated = netip.AddrPortFrom(ipv4(203, 113<<8|i/ports), uint16(1024+i%ports))
		f.mark = 0x10
	}
	return f
}

func ipv4(net, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(net), byte(host >> 16), byte(host >> 8), byte(host)})
}

func ipv6(net, host int) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0x20, 0x01, 0x0d, 0xb8, 0, byte(net), 0, 0,
		0, 0, 0, 0, 0, byte(host >> 16), byte(host >> 8), byte(host),
	})
}

func (f *flow) ipv6() bool { return f.source.Addr().Is6() }

func (f *flow) icmp() bool { return f.proto == unix.IPPROTO_ICMP || f.proto == unix.IPPROTO_ICMPV6 }

// icmpTypes returns the ICMP types of the request and of its answer.
func (f *flow) icmpTypes() (original, reply uint8) {
	if f.ipv6() {
		return 128, 129
	}
	return 8, 0
}

func (f *flow) nat() bool { return f.translated != f.source }

// stale reports whether f is one of the flows that the jobs with a predicate
// delete. They are a quarter of the mix, as when a DNS service loses a backend.
func (f *flow) stale() bool { return isStale(f.proto, f.destination.Port()) }

func isStale(proto uint8, destinationPort uint16) bool {
	return proto == unix.IPPROTO_UDP && destinationPort == portDNS
}

// busyIndices is the number of flows of the client with the most flows.
const busyIndices = 62

// every selects all flows.
func every(*flow) bool { return true }
