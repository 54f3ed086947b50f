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

// TCPPair is an established TCP connection, both ends of it.
type TCPPair struct {
	Client, Server *net.TCPConn
	// Src is the client's address, Dst the one that it connected to.
	Src, Dst netip.AddrPort

	t testing.TB
}

// TCP connects client with server. A port of zero, and a client without an
// address, are chosen by the kernel.
func (n *NS) TCP(client, server netip.AddrPort) *TCPPair {
	n.t.Helper()
	l := n.listenTCP(server)
	return n.connectTCP(client, l.Addr().(*net.TCPAddr).AddrPort(), l)
}

// TCPThrough lets client connect to dst, and a rule of the namespace must lead
// it to server.
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

// connectTCP makes a connection to dst, which l accepts, and closes l.
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

// Send writes data at the client's end and reads it at the server's.
func (p *TCPPair) Send(data []byte) {
	p.t.Helper()
	p.transfer(p.Client, p.Server, data)
}

// Reply writes data at the server's end and reads it at the client's.
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

// Close closes the connection from the client's end, and then from the
// server's. When it returns both ends have seen the other's FIN.
func (p *TCPPair) Close() {
	p.t.Helper()
	p.limit()
	p.shutdown(p.Client, p.Server)
	p.shutdown(p.Server, p.Client)
	check(p.t, p.Client.Close())
	check(p.t, p.Server.Close())
}

// shutdown closes one direction, and waits until that has arrived.
func (p *TCPPair) shutdown(from, to *net.TCPConn) {
	p.t.Helper()
	check(p.t, from.CloseWrite())
	_, err := io.Copy(io.Discard, to)
	check(p.t, err)
}

// Abort lets the client end the connection with a RST. When it returns the
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

// limit gives the next operation its time.
func (p *TCPPair) limit() {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	check(p.t, p.Client.SetDeadline(deadline))
	check(p.t, p.Server.SetDeadline(deadline))
}

// UDP sends a datagram from src to dst, and one back if reply is set, and
// returns the addresses as they were used: a port of zero, and a src without an
// address, are chosen by the kernel. When it returns, all was received.
func (n *NS) UDP(src, dst netip.AddrPort, reply bool) (from, to netip.AddrPort) {
	n.t.Helper()
	server := n.listenUDP(dst)
	defer server.Close()
	to = server.LocalAddr().(*net.UDPAddr).AddrPort()
	return n.exchangeUDP(src, to, server, reply), to
}

// UDPThrough sends a datagram from src to dst as UDP does, and a rule of the
// namespace must lead it to server.
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

// SYN sends the first packet of a TCP connection, of IPv4, and waits for nothing.
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
