//go:build linux

package nstest

import (
	"strconv"
	"testing"

	"github.com/mdlayher/netlink"

	"github.com/ti-mo/conntrack/internal/netns"
)

const (
	accounting = "net.netfilter.nf_conntrack_acct"
	timestamps = "net.netfilter.nf_conntrack_timestamp"
	count      = "net.netfilter.nf_conntrack_count"
)

// NS is a network namespace for one test, closed when the test ends. What goes
// wrong in a method fails the test, so methods are called from the test's own
// goroutine.
type NS struct {
	t  testing.TB
	ns *netns.NS
}

// Option changes what New makes.
type Option func(*options)

type options struct {
	noTracking bool
	sysctls    []string
}

// Accounting counts the packets and bytes of each flow.
func Accounting() Option {
	return func(o *options) { o.sysctls = append(o.sysctls, accounting) }
}

// Timestamps notes when each flow began and ended.
func Timestamps() Option {
	return func(o *options) { o.sysctls = append(o.sysctls, timestamps) }
}

// NoTracking leaves connection tracking off: the table holds nothing but what
// is put in it.
func NoTracking() Option {
	return func(o *options) { o.noTracking = true }
}

// New makes a namespace for the test, with a loopback interface on which
// packets are tracked. It skips the test where [Require] does.
func New(t testing.TB, opts ...Option) *NS {
	t.Helper()
	Require(t)
	var o options
	for _, opt := range opts {
		opt(&o)
	}

	inner, err := netns.New()
	check(t, err)
	t.Cleanup(func() { check(t, inner.Close()) })
	n := &NS{t: t, ns: inner}
	n.Do(addIPv6)
	if !o.noTracking {
		check(t, inner.Track())
	}
	for _, name := range o.sysctls {
		n.Sysctl(name, "1")
	}
	return n
}

// FD returns the namespace's file descriptor, as netlink.Config.NetNS takes it.
func (n *NS) FD() int {
	return n.ns.FD()
}

// Config returns a configuration that opens netlink sockets in the namespace.
func (n *NS) Config() *netlink.Config {
	return &netlink.Config{NetNS: n.FD()}
}

// Do calls f inside the namespace, on the calling goroutine.
func (n *NS) Do(f func() error) {
	n.t.Helper()
	check(n.t, n.ns.Do(f))
}

// Sysctl writes value to the kernel parameter name, which is given with dots.
func (n *NS) Sysctl(name, value string) {
	n.t.Helper()
	check(n.t, n.ns.Sysctl(name, value))
}

// Count returns the number of flows in the namespace's table, as the kernel
// tells it outside of netlink.
func (n *NS) Count() int {
	n.t.Helper()
	value, err := n.ns.ReadSysctl(count)
	check(n.t, err)
	flows, err := strconv.Atoi(value)
	check(n.t, err)
	return flows
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
