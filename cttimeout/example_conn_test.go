//go:build linux

package cttimeout_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"time"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttimeout"
	"github.com/ti-mo/conntrack/netfilter"
)

// shortDNS is a policy for name servers, whose flows have one question and one
// answer.
var shortDNS = cttimeout.Policy{
	Name:     "dns",
	Family:   netfilter.ProtoIPv4,
	Protocol: conntrack.ProtocolUDP,
	Timeouts: cttimeout.Timeouts{cttimeout.UDPUnreplied: 5 * time.Second, cttimeout.UDPReplied: 5 * time.Second},
}

func ExampleDial() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// Requests need CAP_NET_ADMIN, unlike Dial.
	_, err = c.Dump()
	switch {
	case errors.Is(err, fs.ErrPermission):
		fmt.Println("not allowed")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println("ready")
	}
	// Output: ready
}

func ExampleConn_Close() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Close(); err != nil {
		log.Fatal(err)
	}
	_, err = c.Dump()
	fmt.Println("closed:", errors.Is(err, fs.ErrClosed))
	// Output: closed: true
}

// Set creates the policy if it does not exist.
func ExampleConn_Set() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	defer c.Delete(shortDNS.Name)

	for range 2 {
		if err := c.Set(shortDNS); err != nil {
			log.Fatal(err)
		}
	}
	policies, err := c.Dump()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("policies:", len(policies))
	// Output: policies: 1
}

func ExampleConn_Get() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	switch p, err := c.Get("dns"); {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Println("no policy for DNS")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println(p.Timeouts)
	}
	// Output: no policy for DNS
}

func ExampleConn_Flush() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if err := errors.Join(c.Create(shortDNS), c.Flush()); err != nil {
		log.Fatal(err)
	}
	policies, err := c.Dump()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("policies:", len(policies))
	// Output: policies: 0
}

func ExampleConn_Defaults() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	defaults, err := c.Defaults(conntrack.ProtocolUDP)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("UDP without reply:", defaults[cttimeout.UDPUnreplied])
	// Output: UDP without reply: 30s
}

func ExampleParseState() {
	s, err := cttimeout.ParseState("tcp_established")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s == cttimeout.TCPEstablished)
	// Output: true
}

func ExampleStates() {
	fmt.Println(cttimeout.States(conntrack.ProtocolUDP))
	// Output: [UDP_UNREPLIED UDP_REPLIED]
}
