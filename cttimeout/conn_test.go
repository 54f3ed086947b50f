//go:build linux

package cttimeout_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/cttimeout"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// dial returns a Conn in ns.
func dial(t testing.TB, ns *nstest.NS) *cttimeout.Conn {
	t.Helper()
	c, err := cttimeout.Dial(ns.Config())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func udpPolicy(name string, unreplied time.Duration) cttimeout.Policy {
	return cttimeout.Policy{
		Name:     name,
		Family:   netfilter.ProtoIPv4,
		Protocol: unix.IPPROTO_UDP,
		Timeouts: cttimeout.Timeouts{cttimeout.UDPUnreplied: unreplied},
	}
}

func requireOpError(t testing.TB, err, want error) {
	t.Helper()
	require.ErrorIs(t, err, want)
	var op *cttimeout.OpError
	require.ErrorAs(t, err, &op)
}

var protocols = []struct {
	name   string
	number uint8
	family netfilter.ProtoFamily
	// sysctls are the names of the defaults, without their common prefix.
	sysctls map[cttimeout.State]string
}{
	{"icmp", unix.IPPROTO_ICMP, netfilter.ProtoIPv4, map[cttimeout.State]string{
		cttimeout.ICMPTimeout: "icmp_timeout",
	}},
	{"tcp", unix.IPPROTO_TCP, netfilter.ProtoIPv4, map[cttimeout.State]string{
		cttimeout.TCPSynSent:     "tcp_timeout_syn_sent",
		cttimeout.TCPSynRecv:     "tcp_timeout_syn_recv",
		cttimeout.TCPEstablished: "tcp_timeout_established",
		cttimeout.TCPFinWait:     "tcp_timeout_fin_wait",
		cttimeout.TCPCloseWait:   "tcp_timeout_close_wait",
		cttimeout.TCPLastAck:     "tcp_timeout_last_ack",
		cttimeout.TCPTimeWait:    "tcp_timeout_time_wait",
		cttimeout.TCPClose:       "tcp_timeout_close",
		cttimeout.TCPRetrans:     "tcp_timeout_max_retrans",
		cttimeout.TCPUnack:       "tcp_timeout_unacknowledged",
	}},
	{"udp", unix.IPPROTO_UDP, netfilter.ProtoIPv6, map[cttimeout.State]string{
		cttimeout.UDPUnreplied: "udp_timeout",
		cttimeout.UDPReplied:   "udp_timeout_stream",
	}},
	{"dccp", unix.IPPROTO_DCCP, netfilter.ProtoIPv4, map[cttimeout.State]string{
		cttimeout.DCCPRequest:  "dccp_timeout_request",
		cttimeout.DCCPRespond:  "dccp_timeout_respond",
		cttimeout.DCCPPartOpen: "dccp_timeout_partopen",
		cttimeout.DCCPOpen:     "dccp_timeout_open",
		cttimeout.DCCPCloseReq: "dccp_timeout_closereq",
		cttimeout.DCCPClosing:  "dccp_timeout_closing",
		cttimeout.DCCPTimeWait: "dccp_timeout_timewait",
	}},
	{"gre", unix.IPPROTO_GRE, netfilter.ProtoIPv4, map[cttimeout.State]string{
		cttimeout.GREUnreplied: "gre_timeout",
		cttimeout.GREReplied:   "gre_timeout_stream",
	}},
	{"icmpv6", unix.IPPROTO_ICMPV6, netfilter.ProtoIPv6, map[cttimeout.State]string{
		cttimeout.ICMPv6Timeout: "icmpv6_timeout",
	}},
	{"sctp", unix.IPPROTO_SCTP, netfilter.ProtoIPv6, map[cttimeout.State]string{
		cttimeout.SCTPClosed:          "sctp_timeout_closed",
		cttimeout.SCTPCookieWait:      "sctp_timeout_cookie_wait",
		cttimeout.SCTPCookieEchoed:    "sctp_timeout_cookie_echoed",
		cttimeout.SCTPEstablished:     "sctp_timeout_established",
		cttimeout.SCTPShutdownSent:    "sctp_timeout_shutdown_sent",
		cttimeout.SCTPShutdownRecd:    "sctp_timeout_shutdown_recd",
		cttimeout.SCTPShutdownAckSent: "sctp_timeout_shutdown_ack_sent",
		cttimeout.SCTPHeartbeatSent:   "sctp_timeout_heartbeat_sent",
	}},
	{"udplite", unix.IPPROTO_UDPLITE, netfilter.ProtoIPv4, map[cttimeout.State]string{
		cttimeout.UDPLiteUnreplied: "udp_timeout",
		cttimeout.UDPLiteReplied:   "udp_timeout_stream",
	}},
	{"generic", cttimeout.ProtocolGeneric, netfilter.ProtoIPv4, map[cttimeout.State]string{
		cttimeout.GenericTimeout: "generic_timeout",
	}},
}

const sysctlPrefix = "net.netfilter.nf_conntrack_"

// timeouts returns a different timeout for each state of a protocol.
func timeouts(protocol uint8, from time.Duration) cttimeout.Timeouts {
	t := make(cttimeout.Timeouts)
	for i, state := range cttimeout.States(protocol) {
		t[state] = from + time.Duration(i)*time.Second
	}
	return t
}

// skipUntracked skips the test if the kernel does not track the protocol of p.
// Before, it asserts that all requests about the protocol say so.
func skipUntracked(t *testing.T, c *cttimeout.Conn, p cttimeout.Policy) {
	t.Helper()
	_, err := c.Defaults(p.Protocol)
	if err == nil {
		return
	}
	for _, err := range []error{err, c.Create(p), c.Set(p), c.SetDefaults(p.Protocol, p.Timeouts)} {
		requireOpError(t, err, unix.EOPNOTSUPP)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "does not track this protocol")
	}
	// Only protocols that later kernels dropped may be missing.
	require.Contains(t, []uint8{unix.IPPROTO_DCCP, unix.IPPROTO_UDPLITE}, p.Protocol)
	t.Skipf("the kernel does not track it: %v", err)
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range protocols {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			p := cttimeout.Policy{
				Name:     "policy " + tt.name,
				Family:   tt.family,
				Protocol: tt.number,
				Timeouts: timeouts(tt.number, 1000*time.Second),
				Use:      1,
			}
			skipUntracked(t, c, p)
			require.NoError(t, c.Create(p))
			got, err := c.Get(p.Name)
			require.NoError(t, err)
			require.Equal(t, p, got)

			requireOpError(t, c.Create(p), unix.EEXIST)
			p.Timeouts = timeouts(tt.number, 2000*time.Second)
			require.NoError(t, c.Set(p))
			all, err := c.Dump()
			require.NoError(t, err)
			require.Equal(t, []cttimeout.Policy{p}, all)

			require.NoError(t, c.Delete(p.Name))
			_, err = c.Get(p.Name)
			requireOpError(t, err, unix.ENOENT)
			require.ErrorIs(t, err, fs.ErrNotExist)
			requireOpError(t, c.Delete(p.Name), unix.ENOENT)
		})
	}
}

// TestDefaults asserts that the defaults match the sysctls. This also shows
// that each State means what its name says.
func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, tt := range protocols {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			p := cttimeout.Policy{Name: "policy", Family: tt.family, Protocol: tt.number}
			skipUntracked(t, c, p)

			for state, name := range tt.sysctls {
				ns.Sysctl(sysctlPrefix+name, strconv.Itoa(1000+int(state)))
			}
			defaults, err := c.Defaults(tt.number)
			require.NoError(t, err)
			require.Equal(t, cttimeout.States(tt.number), slices.Sorted(maps.Keys(defaults)))
			for state := range tt.sysctls {
				require.Equal(t, time.Duration(1000+int(state))*time.Second, defaults[state], "%s", state)
			}

			// A policy copies the timeouts that it lacks from the defaults.
			require.NoError(t, c.Create(p))
			for i, state := range cttimeout.States(tt.number) {
				want := maps.Clone(defaults)
				want[state] = time.Duration(5000+i) * time.Second
				require.NoError(t, c.SetDefaults(tt.number, cttimeout.Timeouts{state: want[state]}))
				got, err := c.Defaults(tt.number)
				require.NoError(t, err)
				require.Equal(t, want, got)
				if name, ok := tt.sysctls[state]; ok {
					require.Equal(t, want[state], sysctl(t, ns, name), name)
				}
				require.NoError(t, c.SetDefaults(tt.number, defaults))
			}
			changed := timeouts(tt.number, 3000*time.Second)
			require.NoError(t, c.SetDefaults(tt.number, changed))
			require.NoError(t, c.SetDefaults(tt.number, nil))
			got, err := c.Get(p.Name)
			require.NoError(t, err)
			require.Equal(t, defaults, got.Timeouts)

			// Set does not keep timeouts that are left out.
			require.NoError(t, c.Set(p))
			got, err = c.Get(p.Name)
			require.NoError(t, err)
			require.Equal(t, changed, got.Timeouts)
		})
	}
}

func sysctl(t testing.TB, ns *nstest.NS, name string) time.Duration {
	t.Helper()
	var value []byte
	ns.Do(func() (err error) {
		value, err = os.ReadFile("/proc/sys/" + strings.ReplaceAll(sysctlPrefix, ".", "/") + name)
		return err
	})
	seconds, err := strconv.Atoi(strings.TrimSpace(string(value)))
	require.NoError(t, err)
	return time.Duration(seconds) * time.Second
}

func TestZero(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.Create(udpPolicy("zero", 0)))
	p, err := c.Get("zero")
	require.NoError(t, err)
	require.Zero(t, p.Timeouts[cttimeout.UDPUnreplied])
	require.NotZero(t, p.Timeouts[cttimeout.UDPReplied])
}

func TestSet(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	p := udpPolicy("policy", time.Minute)
	require.NoError(t, c.Set(p)) // creates it
	want, err := c.Get(p.Name)
	require.NoError(t, err)
	require.Equal(t, time.Minute, want.Timeouts[cttimeout.UDPUnreplied])

	p6 := p
	p6.Family = netfilter.ProtoIPv6
	tcp := p
	tcp.Protocol, tcp.Timeouts = unix.IPPROTO_TCP, nil
	for _, other := range []cttimeout.Policy{p6, tcp} {
		err := c.Set(other)
		requireOpError(t, err, unix.EINVAL)
		require.ErrorContains(t, err, "keeps the family and the protocol")
	}
	got, err := c.Get(p.Name)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// TestUntracked asserts that protocols without a tracker can only have generic
// policies.
func TestUntracked(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	requireOpError(t, c.Create(cttimeout.Policy{Name: "esp", Family: netfilter.ProtoIPv4, Protocol: esp}), unix.EOPNOTSUPP)
	_, err := c.Defaults(esp)
	requireOpError(t, err, unix.EOPNOTSUPP)
	requireOpError(t, c.SetDefaults(esp, nil), unix.EOPNOTSUPP)
}

// TestDump asserts that Dump returns every policy of the namespace in order and
// complete, even if they do not fit into one message. Policies of other
// namespaces are not returned.
func TestDump(t *testing.T) {
	t.Parallel()
	c, other := dial(t, nstest.New(t)), dial(t, nstest.New(t))
	require.NoError(t, other.Create(udpPolicy("other", time.Minute)))
	all, err := c.Dump()
	require.NoError(t, err)
	require.Empty(t, all)

	const n = 1000
	for i := range n {
		require.NoError(t, c.Create(udpPolicy(fmt.Sprintf("policy %d", i), time.Duration(i)*time.Second)))
	}
	for range 2 {
		all, err = c.Dump()
		require.NoError(t, err)
		require.Len(t, all, n)
		for i, p := range all {
			require.Equal(t, fmt.Sprintf("policy %d", i), p.Name)
			require.Equal(t, time.Duration(i)*time.Second, p.Timeouts[cttimeout.UDPUnreplied])
		}
	}

	require.NoError(t, c.Flush())
	require.NoError(t, c.Flush())
	all, err = c.Dump()
	require.NoError(t, err)
	require.Empty(t, all)
	_, err = other.Get("other")
	require.NoError(t, err)
}

// TestNames asserts that the kernel accepts all names that this package
// accepts.
func TestNames(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	for _, name := range []string{"x", "with space", "\xff\n", strings.Repeat("x", 31)} {
		require.NoError(t, c.Create(udpPolicy(name, time.Minute)), "%q", name)
		p, err := c.Get(name)
		require.NoError(t, err)
		require.Equal(t, name, p.Name)
	}
}

// TestBadInput asserts that invalid arguments are refused before anything is
// sent, and change nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.Create(udpPolicy("kept", time.Minute)))
	before, err := c.Dump()
	require.NoError(t, err)
	defaults, err := c.Defaults(unix.IPPROTO_UDP)
	require.NoError(t, err)

	get := func(name string) error {
		_, err := c.Get(name)
		return err
	}
	for what, name := range map[string]string{"none": "", "32 bytes": strings.Repeat("x", 32), "NUL": "kept\x00"} {
		t.Run("name: "+what, func(t *testing.T) {
			p := udpPolicy(name, time.Minute)
			for _, err := range []error{c.Create(p), c.Set(p), get(name), c.Delete(name)} {
				requireOpError(t, err, cttimeout.ErrBadName)
			}
		})
	}
	for _, family := range []netfilter.ProtoFamily{netfilter.ProtoUnspec, netfilter.ProtoInet, 99} {
		t.Run(fmt.Sprintf("family %d", family), func(t *testing.T) {
			p := udpPolicy("bad", time.Minute)
			p.Family = family
			requireOpError(t, c.Create(p), cttimeout.ErrBadFamily)
			requireOpError(t, c.Set(p), cttimeout.ErrBadFamily)
		})
	}
	tests := []struct {
		name    string
		state   cttimeout.State
		timeout time.Duration
		want    error
		text    string
	}{
		{"fraction", cttimeout.UDPReplied, 1500 * time.Millisecond, cttimeout.ErrBadTimeout, "UDP_REPLIED: 1.5s: "},
		{"below zero", cttimeout.UDPReplied, -time.Second, cttimeout.ErrBadTimeout, "UDP_REPLIED: -1s: "},
		{"too long", cttimeout.UDPReplied, cttimeout.MaxTimeout + time.Second, cttimeout.ErrBadTimeout, "UDP_REPLIED: 576h0m1s: "},
		{"other protocol", cttimeout.TCPEstablished, time.Second, cttimeout.ErrBadState, "TCP_ESTABLISHED: no such timeout for protocol 17"},
		{"no state", 0, time.Second, cttimeout.ErrBadState, "State(0x0): "},
		{"unknown state", cttimeout.UDPReplied + 1, time.Second, cttimeout.ErrBadState, "State(0x1103): "},
		{"state 0 of the protocol", cttimeout.UDPUnreplied - 1, time.Second, cttimeout.ErrBadState, "State(0x1100): "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := udpPolicy("bad", time.Minute)
			p.Timeouts[tt.state] = tt.timeout
			for _, err := range []error{c.Create(p), c.Set(p), c.SetDefaults(p.Protocol, p.Timeouts)} {
				requireOpError(t, err, tt.want)
				require.ErrorContains(t, err, tt.text)
			}
		})
	}

	after, err := c.Dump()
	require.NoError(t, err)
	require.Equal(t, before, after)
	got, err := c.Defaults(unix.IPPROTO_UDP)
	require.NoError(t, err)
	require.Equal(t, defaults, got)
}

// A call is a call of a method with valid arguments.
type call struct {
	name string
	do   func() error
}

// calls returns calls of all methods that use the socket, except Close.
func calls(c *cttimeout.Conn) []call {
	p := udpPolicy("policy", time.Minute)
	return []call{
		{"Create", func() error { return c.Create(p) }},
		{"Set", func() error { return c.Set(p) }},
		{"Get", func() error {
			_, err := c.Get(p.Name)
			return err
		}},
		{"Dump", func() error {
			_, err := c.Dump()
			return err
		}},
		{"Delete", func() error { return c.Delete(p.Name) }},
		{"Flush", func() error { return c.Flush() }},
		{"Defaults", func() error {
			_, err := c.Defaults(p.Protocol)
			return err
		}},
		{"SetDefaults", func() error { return c.SetDefaults(p.Protocol, p.Timeouts) }},
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	for _, call := range calls(c) {
		t.Run(call.name, func(t *testing.T) {
			requireOpError(t, call.do(), fs.ErrClosed)
		})
	}
}

// TestUnprivileged asserts that without the privilege, errors say that it is
// missing.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	for _, call := range calls(c) {
		t.Run(call.name, func(t *testing.T) {
			var err error
			ns.Do(func() error {
				return withoutNetAdmin(func() { err = call.do() })
			})
			requireOpError(t, err, unix.EPERM)
			require.ErrorIs(t, err, fs.ErrPermission)
			require.ErrorContains(t, err, "CAP_NET_ADMIN")
		})
	}
	require.NoError(t, c.Create(udpPolicy("policy", time.Minute)))
}

// withoutNetAdmin calls fn without CAP_NET_ADMIN. The calling thread must be
// locked; other threads keep the capability.
func withoutNetAdmin(fn func()) (err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	before := data
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	defer func() { err = unix.Capset(&header, &before[0]) }()
	fn()
	return nil
}

// TestDialGroups asserts that Dial ignores Groups and does not modify the
// config.
func TestDialGroups(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	config := &netlink.Config{NetNS: ns.FD(), Groups: 1}
	c, err := cttimeout.Dial(config)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Equal(t, &netlink.Config{NetNS: ns.FD(), Groups: 1}, config)

	_, err = cttimeout.Dial(&netlink.Config{NetNS: 1 << 20})
	requireOpError(t, err, unix.EBADF)
}

// TestConcurrent asserts that several goroutines can use one Conn at once.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	const workers, rounds = 4, 50
	errs := make(chan error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				p := udpPolicy(fmt.Sprintf("%d %d", w, i), time.Duration(w*rounds+i)*time.Second)
				if err := roundTrip(c, p); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	all, err := c.Dump()
	require.NoError(t, err)
	require.Empty(t, all)
}

func roundTrip(c *cttimeout.Conn, p cttimeout.Policy) error {
	if err := c.Create(p); err != nil {
		return err
	}
	got, err := c.Get(p.Name)
	if err != nil {
		return err
	}
	if got.Name != p.Name || got.Timeouts[cttimeout.UDPUnreplied] != p.Timeouts[cttimeout.UDPUnreplied] {
		return fmt.Errorf("got %v, want %v", got, p)
	}
	all, err := c.Dump()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(o cttimeout.Policy) bool { return o.Name == p.Name }) {
		return fmt.Errorf("%q is not in %v", p.Name, all)
	}
	return c.Delete(p.Name)
}
