//go:build linux

package cttimeout_test

import (
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttimeout"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

const esp = unix.IPPROTO_ESP

var (
	client4 = netip.MustParseAddrPort("127.0.0.1:1000")
	server4 = netip.MustParseAddrPort("127.0.0.2:2000")
	client6 = netip.AddrPortFrom(netip.IPv6Loopback(), 1000)
	server6 = netip.AddrPortFrom(nstest.IPv6, 2000)
)

// attach adds the rule that the nftables versions of iptables and ip6tables add
// for
//
//	-t raw -A OUTPUT -p PROTOCOL -j CT --timeout NAME
//
// The match of an extension must name its protocol, because the target relies
// on it.
func attach(ns *nstest.NS, family netfilter.ProtoFamily, protocol uint8, name string) error {
	const allPorts = 0xffff
	match := map[uint8]*expr.Match{
		unix.IPPROTO_TCP: {Name: "tcp", Info: &xt.Tcp{SrcPorts: [2]uint16{0, allPorts}, DstPorts: [2]uint16{0, allPorts}}},
		unix.IPPROTO_UDP: {Name: "udp", Info: &xt.Udp{SrcPorts: [2]uint16{0, allPorts}, DstPorts: [2]uint16{0, allPorts}}},
		// struct xt_esp: the lowest and the highest SPI, flags, padding.
		esp: {Name: "esp", Info: &xt.Unknown{4: 0xff, 5: 0xff, 6: 0xff, 7: 0xff, 15: 0}},
	}[protocol]

	// struct xt_ct_target_info_v1: flags, zone, two event masks, char helper[16],
	// char timeout[32], and room for the kernel's pointer.
	info := make(xt.Unknown, 72)
	copy(info[28:60], name)

	conn := ns.NFT()
	table := conn.AddTable(rawTable(family))
	chain := conn.AddChain(&nftables.Chain{
		Table:    table,
		Name:     "OUTPUT",
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityRaw,
	})
	conn.AddRule(&nftables.Rule{
		Table: table,
		Chain: chain,
		Exprs: []expr.Any{match, &expr.Target{Name: "CT", Rev: 1, Info: &info}},
	})
	return conn.Flush()
}

func rawTable(family netfilter.ProtoFamily) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamily(family), Name: "raw"}
}

// detach removes the rules of attach.
func detach(t testing.TB, ns *nstest.NS, family netfilter.ProtoFamily) {
	t.Helper()
	conn := ns.NFT()
	conn.DelTable(rawTable(family))
	require.NoError(t, conn.Flush())
}

// requireTimeout asserts that there is one flow, and that its timeout is about
// want.
func requireTimeout(t testing.TB, ns *nstest.NS, want time.Duration) {
	t.Helper()
	c, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	defer c.Close()
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, 1)
	const patience = 30 // allowed seconds since the packet
	require.LessOrEqual(t, float64(flows[0].Timeout), want.Seconds())
	require.Greater(t, float64(flows[0].Timeout), want.Seconds()-patience)
}

// TestAttach asserts that a flow gets the timeout of the policy that a rule
// attaches. It sends real packets.
func TestAttach(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		family   netfilter.ProtoFamily
		protocol uint8 // of the policy
		packets  uint8 // protocol that the rule matches
		state    cttimeout.State
		timeout  time.Duration
		send     func(t *testing.T, ns *nstest.NS)
	}{
		{"UDP", netfilter.ProtoIPv4, unix.IPPROTO_UDP, unix.IPPROTO_UDP, cttimeout.UDPUnreplied, time.Hour,
			func(_ *testing.T, ns *nstest.NS) { ns.UDP(client4, server4, true) }},
		{"UDP over IPv6", netfilter.ProtoIPv6, unix.IPPROTO_UDP, unix.IPPROTO_UDP, cttimeout.UDPUnreplied, time.Hour,
			func(_ *testing.T, ns *nstest.NS) { ns.UDP(client6, server6, true) }},
		{"TCP established", netfilter.ProtoIPv4, unix.IPPROTO_TCP, unix.IPPROTO_TCP, cttimeout.TCPEstablished, time.Hour,
			func(_ *testing.T, ns *nstest.NS) { ns.TCP(client4, server4) }},
		{"TCP established over IPv6", netfilter.ProtoIPv6, unix.IPPROTO_TCP, unix.IPPROTO_TCP, cttimeout.TCPEstablished, time.Hour,
			func(_ *testing.T, ns *nstest.NS) { ns.TCP(client6, server6) }},
		{"TCP in TIME_WAIT", netfilter.ProtoIPv4, unix.IPPROTO_TCP, unix.IPPROTO_TCP, cttimeout.TCPTimeWait, 2 * time.Hour,
			func(_ *testing.T, ns *nstest.NS) { ns.TCP(client4, server4).Close() }},
		{"TCP, the longest", netfilter.ProtoIPv4, unix.IPPROTO_TCP, unix.IPPROTO_TCP, cttimeout.TCPEstablished, cttimeout.MaxTimeout,
			func(_ *testing.T, ns *nstest.NS) { ns.TCP(client4, server4) }},
		{"generic", netfilter.ProtoIPv4, cttimeout.ProtocolGeneric, esp, cttimeout.GenericTimeout, time.Hour,
			func(_ *testing.T, ns *nstest.NS) { ns.Raw(esp, client4.Addr(), server4.Addr(), make([]byte, 32)) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			c := dial(t, ns)
			require.NoError(t, c.Create(cttimeout.Policy{
				Name:     "policy",
				Family:   tt.family,
				Protocol: tt.protocol,
				Timeouts: cttimeout.Timeouts{tt.state: tt.timeout},
			}))
			require.NoError(t, attach(ns, tt.family, tt.packets, "policy"))
			tt.send(t, ns)
			requireTimeout(t, ns, tt.timeout)
		})
	}
}

// TestAttachZero asserts that a timeout of zero ends flows at once. It does not
// mean that there is no timeout.
func TestAttachZero(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	p := udpPolicy("policy", 0)
	require.NoError(t, c.Create(p))
	require.NoError(t, attach(ns, p.Family, p.Protocol, p.Name))
	ns.UDP(client4, server4, false)
	table, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	defer table.Close()
	flows, err := table.Dump(nil)
	require.NoError(t, err)
	require.Empty(t, flows)
}

// TestAttachSet asserts that a change to a policy affects the flows that have
// it.
func TestAttachSet(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	p := udpPolicy("policy", time.Hour)
	require.NoError(t, c.Create(p))
	require.NoError(t, attach(ns, p.Family, p.Protocol, p.Name))
	ns.UDP(client4, server4, false)
	requireTimeout(t, ns, time.Hour)

	p.Timeouts[cttimeout.UDPUnreplied] = 2 * time.Hour
	require.NoError(t, c.Set(p))
	requireTimeout(t, ns, time.Hour)
	ns.UDP(client4, server4, false)
	require.Equal(t, 1, ns.Count())
	requireTimeout(t, ns, 2*time.Hour)
}

// TestAttachDelete asserts what happens when a policy in use is deleted.
func TestAttachDelete(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	p := udpPolicy("policy", time.Hour)
	require.NoError(t, c.Create(p))
	require.NoError(t, attach(ns, p.Family, p.Protocol, p.Name))
	ns.UDP(client4, server4, false)
	used, err := c.Get(p.Name)
	require.NoError(t, err)
	require.Greater(t, used.Use, uint32(1))

	err = c.Delete(p.Name)
	if err == nil { // kernels of late 2026
		_, err = c.Get(p.Name)
		require.ErrorIs(t, err, unix.ENOENT)
		return
	}
	requireOpError(t, err, unix.EBUSY)
	require.EqualError(t, err, `cttimeout: delete policy "policy": netlink receive: device or resource busy`)
	require.NoError(t, c.Flush())
	_, err = c.Get(p.Name)
	require.NoError(t, err)

	// A flow with the policy does not keep it in use.
	detach(t, ns, p.Family)
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		// The kernel releases the policy some time after the rule is removed.
		if err = c.Delete(p.Name); !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			break
		}
	}
	require.NoError(t, err)
	ns.UDP(client4, server4, false)
	defaults, err := c.Defaults(unix.IPPROTO_UDP)
	require.NoError(t, err)
	requireTimeout(t, ns, defaults[cttimeout.UDPUnreplied])
}

// TestAttachRefused asserts that the kernel refuses a rule whose policy does
// not fit its packets.
func TestAttachRefused(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	p := udpPolicy("policy", time.Hour)
	require.ErrorIs(t, attach(ns, p.Family, p.Protocol, p.Name), unix.ENOENT)
	require.NoError(t, c.Create(p))
	require.ErrorIs(t, attach(ns, netfilter.ProtoIPv6, p.Protocol, p.Name), unix.EINVAL)
	require.ErrorIs(t, attach(ns, p.Family, unix.IPPROTO_TCP, p.Name), unix.EINVAL)
	require.NoError(t, attach(ns, p.Family, p.Protocol, p.Name))
}
