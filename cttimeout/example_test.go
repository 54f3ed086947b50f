//go:build linux

package cttimeout_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/cttimeout"
	"github.com/ti-mo/conntrack/netfilter"
)

// This policy for web servers can be attached with
//
//	iptables -t raw -A PREROUTING -p tcp --dport 443 -j CT --timeout web
func Example() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if err := c.Set(cttimeout.Policy{
		Name:     "web",
		Family:   netfilter.ProtoIPv4,
		Protocol: unix.IPPROTO_TCP,
		Timeouts: cttimeout.Timeouts{
			cttimeout.TCPEstablished: time.Hour,
			cttimeout.TCPTimeWait:    10 * time.Second,
		},
	}); err != nil {
		log.Fatal(err)
	}

	p, err := c.Get("web")
	if err != nil {
		log.Fatal(err)
	}
	for _, state := range []cttimeout.State{cttimeout.TCPEstablished, cttimeout.TCPTimeWait, cttimeout.TCPSynSent} {
		fmt.Println(state, p.Timeouts[state])
	}
	if err := c.Delete("web"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// TCP_ESTABLISHED 1h0m0s
	// TCP_TIME_WAIT 10s
	// TCP_SYN_SENT 2m0s
}

func ExampleConn_Create() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	dns := cttimeout.Policy{
		Name:     "dns",
		Family:   netfilter.ProtoIPv6,
		Protocol: unix.IPPROTO_UDP,
		Timeouts: cttimeout.Timeouts{cttimeout.UDPUnreplied: 5 * time.Second},
	}
	for range 2 {
		switch err := c.Create(dns); {
		case errors.Is(err, fs.ErrExist):
			fmt.Println("it is there already")
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println("created")
		}
	}
	if err := c.Delete(dns.Name); err != nil {
		log.Fatal(err)
	}
	// Output:
	// created
	// it is there already
}

func ExampleConn_Delete() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	switch err := c.Delete("web"); {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Println("there is none")
	case errors.Is(err, unix.EBUSY):
		fmt.Println("a rule refers to it")
	case err != nil:
		log.Fatal(err)
	}
	// Output: there is none
}

func ExampleConn_Dump() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	policies, err := c.Dump()
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range policies {
		fmt.Println(p.Name, p.Timeouts)
	}
	fmt.Println(len(policies), "policies")
	// Output: 0 policies
}

func ExampleConn_SetDefaults() {
	c, err := cttimeout.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// This has the effect of "sysctl
	// net.netfilter.nf_conntrack_icmp_timeout=20".
	if err := c.SetDefaults(unix.IPPROTO_ICMP, cttimeout.Timeouts{cttimeout.ICMPTimeout: 20 * time.Second}); err != nil {
		log.Fatal(err)
	}
	defaults, err := c.Defaults(unix.IPPROTO_ICMP)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(defaults)
	// Output: map[ICMP_TIMEOUT:20s]
}
