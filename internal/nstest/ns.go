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

// An NS is a network namespace for one test, closed when the test ends. Its
// methods fail the test on an error, so call them from the test's own
// goroutine.
type NS struct {
	t  testing.TB
	ns *netns.NS
}

// An Option changes what [New] creates.
type Option func(*options)

type options struct {
	noTracking bool
	sysctls    []string
}

// Accounting turns on the counters of each flow.
func Accounting() Option {
	return func(o *options) { o.sysctls = append(o.sysctls, accounting) }
}

// Timestamps turns on the start and stop times of each flow.
func Timestamps() Option {
	return func(o *options) { o.sysctls = append(o.sysctls, timestamps) }
}

// NoTracking leaves connection tracking off. The table only has the flows that
// the test puts there.
func NoTracking() Option {
	return func(o *options) { o.noTracking = true }
}

// New creates a namespace for the test, with a loopback interface on which
// packets are tracked. It skips the test like [Require].
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

// FD returns the file descriptor of the namespace, for netlink.Config.NetNS.
func (n *NS) FD() int {
	return n.ns.FD()
}

// Config returns a configuration for opening netlink sockets in the namespace.
func (n *NS) Config() *netlink.Config {
	return &netlink.Config{NetNS: n.FD()}
}

// Do calls f inside the namespace, on the calling goroutine.
func (n *NS) Do(f func() error) {
	n.t.Helper()
	check(n.t, n.ns.Do(f))
}

// Sysctl sets a kernel parameter. The name has dots.
func (n *NS) Sysctl(name, value string) {
	n.t.Helper()
	check(n.t, n.ns.Sysctl(name, value))
}

// Count returns the number of flows in the namespace's table. It does not use
// netlink.
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
