//go:build linux

package nstest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a packet may take over loopback.
const patience = 10 * time.Second

// A TCPPair is both ends of an established TCP connection.
type TCPPair struct {
	Client, Server *net.TCPConn
	// Src is the client's address. Dst is the address that it connected to.
	Src, Dst netip.AddrPort

	t testing.TB
}

// TCP connects client to server. The kernel chooses ports that are zero, and
// the address of a client without one.
func (n *NS) TCP(client, server netip.AddrPort) *TCPPair {
	n.t.Helper()
	l := n.listenTCP(server)
	return n.connectTCP(client, l.Addr().(*net.TCPAddr).AddrPort(), l)
}

// TCPThrough connects client to dst. A rule of the namespace must translate dst
// to server.
func (n *NS) TCPThrough(client, dst, server netip.AddrPort) *TCPPair {
	n.t.Helper()
	return n.connectTCP(client, dst, n.listenTCP(server))
}

func (n *NS) listenTCP(addr netip.AddrPort) (l *net.TCPListener) {
	n.t.Helper()
	n.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	})
	return l
}

// connectTCP connects client to dst. It accepts the connection on l and closes
// l.
func (n *NS) connectTCP(client, dst netip.AddrPort, l *net.TCPListener) *TCPPair {
	n.t.Helper()
	defer l.Close()
	p := &TCPPair{t: n.t, Dst: dst}
	n.Do(func() (err error) {
		p.Client, err = net.DialTCP("tcp", net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(dst))
		return err
	})
	n.t.Cleanup(func() { p.Client.Close() })
	p.Src = p.Client.LocalAddr().(*net.TCPAddr).AddrPort()

	check(n.t, l.SetDeadline(time.Now().Add(patience)))
	var err error
	p.Server, err = l.AcceptTCP()
	check(n.t, err)
	n.t.Cleanup(func() { p.Server.Close() })
	return p
}

// Send writes data at the client and reads it at the server.
func (p *TCPPair) Send(data []byte) {
	p.t.Helper()
	p.transfer(p.Client, p.Server, data)
}

// Reply writes data at the server and reads it at the client.
func (p *TCPPair) Reply(data []byte) {
	p.t.Helper()
	p.transfer(p.Server, p.Client, data)
}

func (p *TCPPair) transfer(from, to *net.TCPConn, data []byte) {
	p.t.Helper()
	p.limit()
	written := make(chan error, 1)
	go func() {
		_, err := from.Write(data)
		written <- err
	}()
	_, err := io.ReadFull(to, make([]byte, len(data)))
	check(p.t, err)
	check(p.t, <-written)
}

// Close closes the connection, first at the client, then at the server. It
// returns when both ends have seen the FIN of the other.
func (p *TCPPair) Close() {
	p.t.Helper()
	p.limit()
	p.shutdown(p.Client, p.Server)
	p.shutdown(p.Server, p.Client)
	check(p.t, p.Client.Close())
	check(p.t, p.Server.Close())
}

// shutdown closes one direction and waits until the other end has seen it.
func (p *TCPPair) shutdown(from, to *net.TCPConn) {
	p.t.Helper()
	check(p.t, from.CloseWrite())
	_, err := io.Copy(io.Discard, to)
	check(p.t, err)
}

// Abort ends the connection with a RST from the client. It returns when the
// server has seen it.
func (p *TCPPair) Abort() {
	p.t.Helper()
	p.limit()
	check(p.t, p.Client.SetLinger(0))
	check(p.t, p.Client.Close())
	if _, err := io.Copy(io.Discard, p.Server); !errors.Is(err, unix.ECONNRESET) {
		p.t.Fatalf("aborted connection ends with %v, want %v", err, unix.ECONNRESET)
	}
	check(p.t, p.Server.Close())
}

// limit sets the deadline of the next operation.
func (p *TCPPair) limit() {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	check(p.t, p.Client.SetDeadline(deadline))
	check(p.t, p.Server.SetDeadline(deadline))
}

// UDP sends a datagram from src to dst and, if reply is set, one back. It
// returns the addresses used, once all has been received. The kernel chooses
// ports that are zero, and the address of a src without one.
func (n *NS) UDP(src, dst netip.AddrPort, reply bool) (from, to netip.AddrPort) {
	n.t.Helper()
	server := n.listenUDP(dst)
	defer server.Close()
	to = server.LocalAddr().(*net.UDPAddr).AddrPort()
	return n.exchangeUDP(src, to, server, reply), to
}

// UDPThrough is like [NS.UDP], but a rule of the namespace must translate dst
// to server.
func (n *NS) UDPThrough(src, dst, server netip.AddrPort, reply bool) (from netip.AddrPort) {
	n.t.Helper()
	conn := n.listenUDP(server)
	defer conn.Close()
	return n.exchangeUDP(src, dst, conn, reply)
}

func (n *NS) listenUDP(addr netip.AddrPort) (conn *net.UDPConn) {
	n.t.Helper()
	n.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	})
	return conn
}

// exchangeUDP sends a datagram from src to dst, which server receives.
func (n *NS) exchangeUDP(src, dst netip.AddrPort, server *net.UDPConn, reply bool) (from netip.AddrPort) {
	n.t.Helper()
	var client *net.UDPConn
	n.Do(func() (err error) {
		client, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(src), net.UDPAddrFromAddrPort(dst))
		return err
	})
	defer client.Close()
	deadline := time.Now().Add(patience)
	check(n.t, client.SetDeadline(deadline))
	check(n.t, server.SetDeadline(deadline))

	_, err := client.Write([]byte("ping"))
	check(n.t, err)
	buf := make([]byte, 16)
	_, peer, err := server.ReadFromUDPAddrPort(buf)
	check(n.t, err)
	if reply {
		_, err = server.WriteToUDPAddrPort([]byte("pong"), peer)
		check(n.t, err)
		_, err = client.Read(buf)
		check(n.t, err)
	}
	return client.LocalAddr().(*net.UDPAddr).AddrPort()
}

// SYN sends the first packet of a TCP connection over IPv4. It does not wait.
func (n *NS) SYN(src, dst netip.AddrPort) {
	n.t.Helper()
	address := func(a netip.AddrPort) unix.Sockaddr {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		n.t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, address(src)); err != nil {
			return err
		}
		if err := unix.Connect(fd, address(dst)); !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect: %w", err)
		}
		return nil
	})
}
