//go:build linux

package nstest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Raw sends a packet of the IP protocol proto and returns when it has arrived.
// The payload is everything after the IP header.
func (n *NS) Raw(proto uint8, src, dst netip.Addr, payload []byte) {
	n.t.Helper()
	p := n.rawPair(proto, src, dst)
	defer p.close()
	p.send(payload)
}

// GRE sends a packet of the enhanced GRE that PPTP uses. It is the only GRE
// that the kernel tracks by its key, which is the call ID.
func (n *NS) GRE(src, dst netip.Addr, callID uint16) {
	n.t.Helper()
	const (
		keyPresent = 0x2000
		version1   = 1
		ppp        = 0x880b
	)
	packet := binary.BigEndian.AppendUint16(nil, keyPresent|version1)
	packet = binary.BigEndian.AppendUint16(packet, ppp)
	packet = binary.BigEndian.AppendUint16(packet, 0) // payload length
	packet = binary.BigEndian.AppendUint16(packet, callID)
	n.Raw(unix.IPPROTO_GRE, src, dst, packet)
}

// These are the verification tags of an association made by [NS.SCTP]. The
// client's packets carry SCTPServerTag, the server's carry SCTPClientTag.
const (
	SCTPClientTag = 0x0c11e947
	SCTPServerTag = 0x5e74e400
)

// SCTP establishes an association from src to dst. It builds the packets
// itself, because few kernels have SCTP enabled.
func (n *NS) SCTP(src, dst netip.AddrPort) {
	n.t.Helper()
	const (
		initiate    = 1
		initiateAck = 2
		cookieEcho  = 10
		cookieAck   = 11
	)
	p := n.rawPair(unix.IPPROTO_SCTP, src.Addr(), dst.Addr())
	defer p.close()
	out := func(tag uint32, chunk byte, value []byte) {
		p.send(sctpPacket(src.Port(), dst.Port(), tag, chunk, value))
	}
	back := func(chunk byte, value []byte) {
		p.reply(sctpPacket(dst.Port(), src.Port(), SCTPClientTag, chunk, value))
	}
	out(0, initiate, sctpInit(SCTPClientTag))
	back(initiateAck, sctpInit(SCTPServerTag))
	out(SCTPServerTag, cookieEcho, []byte("cookie!!"))
	back(cookieAck, nil)
}

// sctpInit returns the value of an INIT or INIT ACK chunk: the tag, the
// receiver window, the number of streams in each direction, and the first TSN.
func sctpInit(tag uint32) []byte {
	value := binary.BigEndian.AppendUint32(nil, tag)
	value = binary.BigEndian.AppendUint32(value, 65536)
	value = binary.BigEndian.AppendUint16(value, 1)
	value = binary.BigEndian.AppendUint16(value, 1)
	return binary.BigEndian.AppendUint32(value, 1)
}

// sctpPacket returns an SCTP packet with one chunk.
func sctpPacket(src, dst uint16, tag uint32, chunk byte, value []byte) []byte {
	packet := binary.BigEndian.AppendUint16(nil, src)
	packet = binary.BigEndian.AppendUint16(packet, dst)
	packet = binary.BigEndian.AppendUint32(packet, tag)
	packet = append(packet, 0, 0, 0, 0) // checksum
	packet = append(packet, chunk, 0)
	packet = binary.BigEndian.AppendUint16(packet, uint16(4+len(value)))
	packet = append(packet, value...)

	sum := crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(packet[8:], sum)
	return packet
}

// ICMPEcho sends an echo request with the given ID to dst and returns when the
// reply has arrived.
func (n *NS) ICMPEcho(dst netip.Addr, id uint16) {
	n.t.Helper()
	proto, request, reply := uint8(unix.IPPROTO_ICMP), byte(8), byte(0)
	if dst.Is6() {
		proto, request, reply = unix.IPPROTO_ICMPV6, 128, 129
	}
	conn := n.listenIP(proto, dst)
	defer conn.Close()
	check(n.t, conn.SetDeadline(time.Now().Add(patience)))

	packet := []byte{request, 0, 0, 0}
	packet = binary.BigEndian.AppendUint16(packet, id)
	packet = binary.BigEndian.AppendUint16(packet, 1) // sequence number
	if dst.Is4() {
		// For ICMPv6, the kernel computes the checksum.
		binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	}
	_, err := conn.WriteToIP(packet, &net.IPAddr{IP: dst.AsSlice()})
	check(n.t, err)
	receive(n.t, conn, func(p []byte) bool {
		return len(p) >= 6 && p[0] == reply && binary.BigEndian.Uint16(p[4:]) == id
	})
}

// checksum returns the Internet checksum of data, whose length must be even.
func checksum(data []byte) uint16 {
	var sum uint32
	for ; len(data) > 0; data = data[2:] {
		sum += uint32(binary.BigEndian.Uint16(data))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// rawPair is two raw sockets of one protocol that send to each other.
type rawPair struct {
	t              testing.TB
	client, server *net.IPConn
}

func (n *NS) rawPair(proto uint8, src, dst netip.Addr) *rawPair {
	n.t.Helper()
	return &rawPair{n.t, n.listenIP(proto, src), n.listenIP(proto, dst)}
}

func (n *NS) listenIP(proto uint8, addr netip.Addr) (conn *net.IPConn) {
	n.t.Helper()
	network := "ip4:"
	if addr.Is6() {
		network = "ip6:"
	}
	n.Do(func() (err error) {
		conn, err = net.ListenIP(network+strconv.Itoa(int(proto)), &net.IPAddr{IP: addr.AsSlice()})
		return err
	})
	return conn
}

func (p *rawPair) send(packet []byte) {
	p.t.Helper()
	p.transfer(p.client, p.server, packet)
}

func (p *rawPair) reply(packet []byte) {
	p.t.Helper()
	p.transfer(p.server, p.client, packet)
}

func (p *rawPair) transfer(from, to *net.IPConn, packet []byte) {
	p.t.Helper()
	check(p.t, to.SetDeadline(time.Now().Add(patience)))
	_, err := from.WriteTo(packet, to.LocalAddr())
	check(p.t, err)
	receive(p.t, to, func(received []byte) bool { return bytes.Equal(received, packet) })
}

func (p *rawPair) close() {
	p.client.Close()
	p.server.Close()
}

// receive reads packets until right accepts one. A raw socket receives all
// packets of its protocol.
func receive(t testing.TB, conn *net.IPConn, right func([]byte) bool) {
	t.Helper()
	buf := make([]byte, 65536)
	for {
		// Unlike Read, ReadFromIP omits the IPv4 header.
		size, _, err := conn.ReadFromIP(buf)
		check(t, err)
		if right(buf[:size]) {
			return
		}
	}
}
