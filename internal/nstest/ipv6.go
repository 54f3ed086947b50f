//go:build linux

package nstest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// IPv6 is a second IPv6 address, besides ::1, on the loopback interface of
// every namespace. For IPv4, all of 127.0.0.0/8 is there.
var IPv6 = netip.MustParseAddr("fd00::1")

// addIPv6 adds the address IPv6 to the loopback interface in the thread's
// namespace. It returns when packets can be sent to it.
func addIPv6() error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	// The kernel adds the route some time after the address. Packets sent
	// before that are lost.
	routes, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 1 << (unix.RTNLGRP_IPV6_ROUTE - 1)})
	if err != nil {
		return err
	}
	defer routes.Close()
	if err := addAddress(lo.Index, IPv6); err != nil {
		return fmt.Errorf("adding %s to loopback: %w", IPv6, err)
	}
	if err := awaitRoute(routes, IPv6); err != nil {
		return fmt.Errorf("waiting for a route to %s: %w", IPv6, err)
	}
	return nil
}

func addAddress(link int, addr netip.Addr) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	defer conn.Close()

	// struct ifaddrmsg: family, prefix length, flags, scope, interface index.
	data := []byte{unix.AF_INET6, 128, unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	data = binary.NativeEndian.AppendUint32(data, uint32(link))
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.IFA_LOCAL, Data: addr.AsSlice()},
	})
	if err != nil {
		return err
	}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.RTM_NEWADDR,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl,
		},
		Data: append(data, attributes...),
	})
	return err
}

// awaitRoute waits until the kernel reports a local route to addr.
func awaitRoute(routes *netlink.Conn, addr netip.Addr) error {
	if err := routes.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	const kind = 7 // offset of rtm_type in struct rtmsg
	for {
		messages, err := routes.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == unix.RTM_NEWROUTE && m.Data[kind] == unix.RTN_LOCAL && bytes.Contains(m.Data, addr.AsSlice()) {
				return nil
			}
		}
	}
}
