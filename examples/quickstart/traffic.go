//go:build linux

package main

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"
)

var (
	tcpServer = netip.MustParseAddrPort("127.0.0.1:8080")
	udpServer = netip.MustParseAddrPort("[::1]:5353")

	request = []byte("what is the answer?")
	answer  = []byte("forty-two")
)

// traffic has connections over loopback that stay open until close.
type traffic struct {
	open []io.Closer
}

func (t *traffic) close() {
	for _, c := range t.open {
		c.Close()
	}
}

// send sends packets: a request and an answer over TCP, and the same over UDP.
func (t *traffic) send(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	if err := t.sendTCP(deadline); err != nil {
		return err
	}
	return t.sendUDP(deadline)
}

func (t *traffic) sendTCP(deadline time.Time) error {
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(tcpServer))
	if err != nil {
		return err
	}
	defer listener.Close()
	client, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(tcpServer))
	if err != nil {
		return err
	}
	t.open = append(t.open, client)
	if err := listener.SetDeadline(deadline); err != nil {
		return err
	}
	server, err := listener.AcceptTCP()
	if err != nil {
		return err
	}
	t.open = append(t.open, server)
	return exchange(client, server, server, deadline)
}

func (t *traffic) sendUDP(deadline time.Time) error {
	server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(udpServer))
	if err != nil {
		return err
	}
	t.open = append(t.open, server)
	client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(udpServer))
	if err != nil {
		return err
	}
	t.open = append(t.open, client)
	back := writerTo{server, client.LocalAddr()}
	return exchange(client, server, back, deadline)
}

// writerTo writes datagrams to one address.
type writerTo struct {
	conn *net.UDPConn
	addr net.Addr
}

func (w writerTo) Write(p []byte) (int, error) {
	return w.conn.WriteTo(p, w.addr)
}

// exchange sends the request from client to server, and the answer back. The
// server writes the answer to back.
func exchange(client, server net.Conn, back io.Writer, deadline time.Time) error {
	for _, c := range []net.Conn{client, server} {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := client.Write(request); err != nil {
		return err
	}
	if _, err := io.ReadFull(server, make([]byte, len(request))); err != nil {
		return err
	}
	if _, err := back.Write(answer); err != nil {
		return err
	}
	_, err := io.ReadFull(client, make([]byte, len(answer)))
	return err
}
