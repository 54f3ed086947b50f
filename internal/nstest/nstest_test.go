//go:build linux

package nstest

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/netns"
)

func TestMain(m *testing.M) {
	Main(m)
}

// Examples run in a namespace of their own, which counts flows.
func Example() {
	ns, err := netns.Current()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ns.Close()
	fmt.Println(ns.ReadSysctl(accounting))
	fmt.Println(ns.ReadSysctl(timestamps))
	// Output:
	// 1 <nil>
	// 1 <nil>
}

// TestUnknownConntrack asserts that comparisons with a conntrack command that the
// tests do not know are skipped, but not in CI.
func TestUnknownConntrack(t *testing.T) {
	const child = "CONNTRACK_NSTEST_UNKNOWN"
	if os.Getenv(child) != "" {
		NeedConntrack(t)
		t.Fatal("it is known")
	}
	Require(t)
	command := filepath.Join(t.TempDir(), "conntrack")
	require.NoError(t, os.WriteFile(command, []byte("#!/bin/sh\necho conntrack v0.0.1\n"), 0o700))
	for ci, want := range map[string]string{"true": "--- FAIL", "false": "--- SKIP"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUnknownConntrack$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1", ConntrackVariable+"="+command, "CI="+ci)
		out, err := cmd.CombinedOutput()
		require.Equal(t, ci == "true", err != nil, "%s", out)
		require.Contains(t, string(out), want)
		require.Contains(t, string(out), "this is v0.0.1")
	}
}

var (
	client4 = netip.MustParseAddrPort("127.0.0.2:40000")
	server4 = netip.MustParseAddrPort("127.0.0.1:8080")
	other4  = netip.MustParseAddrPort("127.0.0.3:9090")
	client6 = netip.AddrPortFrom(IPv6, 40000)
	server6 = netip.MustParseAddrPort("[::1]:8080")
	other6  = netip.MustParseAddrPort("[::1]:9090")
)

// TestTraffic asserts that conntrack(8) shows the packets that were sent.
func TestTraffic(t *testing.T) {
	tests := []struct {
		name string
		send func(n *NS)
		want string
	}{
		{"TCP IPv4", func(n *NS) { n.TCP(client4, server4) },
			"ESTABLISHED src=127.0.0.2 dst=127.0.0.1 sport=40000 dport=8080"},
		{"TCP IPv6", func(n *NS) { n.TCP(client6, server6) },
			"ESTABLISHED src=fd00::1 dst=::1 sport=40000 dport=8080"},
		{"TCP closed", func(n *NS) { n.TCP(client4, server4).Close() },
			"TIME_WAIT src=127.0.0.2 dst=127.0.0.1"},
		{"TCP aborted", func(n *NS) { n.TCP(client6, server6).Abort() },
			"CLOSE src=fd00::1 dst=::1"},
		{"UDP IPv4", func(n *NS) { n.UDP(client4, server4, true) },
			"src=127.0.0.2 dst=127.0.0.1 sport=40000 dport=8080 src=127.0.0.1"},
		{"UDP IPv6", func(n *NS) { n.UDP(client6, server6, true) },
			"src=fd00::1 dst=::1 sport=40000 dport=8080 src=::1"},
		{"UDP without reply", func(n *NS) { n.UDP(client4, server4, false) },
			"sport=40000 dport=8080 [UNREPLIED]"},
		{"ICMP", func(n *NS) { n.ICMPEcho(server4.Addr(), 42) },
			"dst=127.0.0.1 type=8 code=0 id=42 src=127.0.0.1"},
		{"ICMPv6", func(n *NS) { n.ICMPEcho(server6.Addr(), 42) },
			"dst=::1 type=128 code=0 id=42 src=::1"},
		{"SCTP IPv4", func(n *NS) { n.SCTP(client4, server4) },
			"ESTABLISHED src=127.0.0.2 dst=127.0.0.1 sport=40000 dport=8080"},
		{"SCTP IPv6", func(n *NS) { n.SCTP(client6, server6) },
			"ESTABLISHED src=fd00::1 dst=::1 sport=40000 dport=8080"},
		{"GRE", func(n *NS) { n.GRE(client4.Addr(), server4.Addr(), 0xbeef) },
			"src=127.0.0.2 dst=127.0.0.1 srckey=0x0 dstkey=0xbeef"},
		{"GRE IPv6", func(n *NS) { n.GRE(client6.Addr(), server6.Addr(), 0xbeef) },
			"src=fd00::1 dst=::1 srckey=0x0 dstkey=0xbeef"},
		{"raw", func(n *NS) { n.Raw(253, client4.Addr(), server4.Addr(), []byte("hello")) },
			"unknown  253"},
		{"raw IPv6", func(n *NS) { n.Raw(253, client6.Addr(), server6.Addr(), []byte("hello")) },
			"src=fd00::1 dst=::1"},
		{"DNAT", func(n *NS) {
			n.DNAT(unix.IPPROTO_TCP, server4, other4)
			n.TCPThrough(client4, server4, other4)
		}, "dport=8080 src=127.0.0.3 dst=127.0.0.2 sport=9090 dport=40000"},
		{"DNAT IPv6", func(n *NS) {
			n.DNAT(unix.IPPROTO_UDP, server6, other6)
			n.UDPThrough(client6, server6, other6, true)
		}, "dport=8080 src=::1 dst=fd00::1 sport=9090 dport=40000"},
		{"SNAT", func(n *NS) {
			n.SNAT(unix.IPPROTO_UDP, server4, other4)
			n.UDP(client4, server4, true)
		}, "dport=8080 src=127.0.0.1 dst=127.0.0.3 sport=8080 dport=9090"},
		{"SNAT address only", func(n *NS) {
			n.SNAT(unix.IPPROTO_TCP, server6, netip.AddrPortFrom(IPv6, 0))
			n.TCP(netip.AddrPortFrom(server6.Addr(), 40000), server6)
		}, "src=::1 dst=::1 sport=40000 dport=8080 src=::1 dst=fd00::1 sport=8080 dport=40000"},
		{"helper", func(n *NS) {
			n.Helper("ftp", unix.IPPROTO_TCP, 8080)
			n.TCP(client4, server4)
		}, "helper=ftp"},
		{"mark", func(n *NS) {
			n.Mark(unix.IPPROTO_TCP, 8080, 0xbeef)
			n.TCP(client4, server4)
		}, "mark=48879"},
		{"zone", func(n *NS) {
			n.Zone(unix.IPPROTO_TCP, 8080, 7)
			n.TCP(client6, server6)
		}, "[ASSURED] mark=0 zone=7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := New(t)
			assert.Zero(t, n.Count())
			tt.send(n)
			assert.Equal(t, 1, n.Count())

			var table strings.Builder
			for _, family := range []string{"ipv4", "ipv6"} {
				table.WriteString(n.Conntrack("-L", "-f", family, "-o", "labels"))
			}
			assert.Contains(t, table.String(), tt.want)
		})
	}
}

func TestTCPTransfer(t *testing.T) {
	t.Parallel()
	n := New(t, Accounting(), Timestamps())
	p := n.TCP(client4, server4)
	assert.Equal(t, client4, p.Src)
	assert.Equal(t, server4, p.Dst)
	p.Send(make([]byte, 1<<20))
	p.Reply(make([]byte, 100))
	table := n.Conntrack("-L", "-o", "ktimestamp")
	assert.Contains(t, table, "bytes=")
	assert.Contains(t, table, "[start=")
}

func TestChosenAddresses(t *testing.T) {
	t.Parallel()
	n := New(t)
	p := n.TCP(netip.AddrPort{}, netip.AddrPortFrom(server6.Addr(), 0))
	assert.NotZero(t, p.Src.Port())
	assert.NotZero(t, p.Dst.Port())
	from, to := n.UDP(netip.AddrPort{}, netip.AddrPortFrom(server4.Addr(), 0), false)
	assert.NotZero(t, from.Port())
	assert.NotZero(t, to.Port())
}

// TestHelper asserts that the kernel's helper reads a real FTP command.
func TestHelper(t *testing.T) {
	t.Parallel()
	n := New(t)
	n.Helper("ftp", unix.IPPROTO_TCP, 8080)
	p := n.TCP(client4, server4)
	p.Send([]byte("USER anonymous\r\n"))
	p.Send([]byte("PORT 127,0,0,2,200,10\r\n"))
	assert.Contains(t, n.Conntrack("-L", "expect"), "dport=51210")
}

// TestLabels asserts that Labels makes the room that setting a label needs.
func TestLabels(t *testing.T) {
	t.Parallel()
	label := [16]byte{1, 2, 3}
	n := New(t)
	n.UDP(client4, server4, false)
	assert.ErrorIs(t, setLabel(t, n, unix.AF_INET, label), unix.ENOSPC)

	n.Labels()
	n.UDP(client6, server6, false)
	assert.NotContains(t, dump(t, n, unix.AF_INET6), uint16(ctaLabels))
	assert.NoError(t, setLabel(t, n, unix.AF_INET6, label))
	assert.Equal(t, label[:], dump(t, n, unix.AF_INET6)[ctaLabels])
}

func TestLabel(t *testing.T) {
	t.Parallel()
	label := [16]byte{1, 2, 3}
	n := New(t)
	n.Label(unix.IPPROTO_TCP, 8080, label)
	n.TCP(client6, server6)
	assert.Equal(t, label[:], dump(t, n, unix.AF_INET6)[ctaLabels])
}

// These are attributes of ctnetlink that the command does not show without a
// configuration file.
const (
	ctNew = unix.NFNL_SUBSYS_CTNETLINK << 8
	ctGet = ctNew | 1

	ctaTupleOrig = 1
	ctaLabels    = 22
)

// dump returns the attributes of the only flow of a family.
func dump(t *testing.T, n *NS, family byte) map[uint16][]byte {
	t.Helper()
	messages, err := execute(t, n, netlink.Dump, ctGet, []byte{family, 0, 0, 0})
	require.NoError(t, err)
	require.Len(t, messages, 1)
	list, err := netlink.UnmarshalAttributes(messages[0].Data[4:])
	require.NoError(t, err)
	attributes := make(map[uint16][]byte)
	for _, a := range list {
		attributes[a.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Data
	}
	return attributes
}

// setLabel sets the label of the only flow of a family.
func setLabel(t *testing.T, n *NS, family byte, label [16]byte) error {
	t.Helper()
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NLA_F_NESTED | ctaTupleOrig, Data: dump(t, n, family)[ctaTupleOrig]},
		{Type: ctaLabels, Data: label[:]},
	})
	require.NoError(t, err)
	_, err = execute(t, n, netlink.Acknowledge, ctNew, append([]byte{family, 0, 0, 0}, attributes...))
	return err
}

func execute(t *testing.T, n *NS, flags netlink.HeaderFlags, kind netlink.HeaderType, data []byte) ([]netlink.Message, error) {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, n.Config())
	require.NoError(t, err)
	defer conn.Close()
	return conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
		Data:   data,
	})
}

func TestDrop(t *testing.T) {
	t.Parallel()
	n := New(t)
	n.Drop(unix.IPPROTO_UDP, 8080)
	err := n.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		return unix.Sendto(fd, []byte("ping"), 0, &unix.SockaddrInet4{Port: 8080, Addr: [4]byte{127, 0, 0, 1}})
	})
	assert.ErrorIs(t, err, unix.EPERM)
	assert.Zero(t, n.Count())
}

func TestNoTracking(t *testing.T) {
	t.Parallel()
	n := New(t, NoTracking())
	n.TCP(client4, server4)
	assert.Zero(t, n.Count())
}

// TestApart asserts that namespaces are separate, and that Do returns to the
// caller's.
func TestApart(t *testing.T) {
	t.Parallel()
	const self = "/proc/thread-self/ns/net"
	here, err := os.Readlink(self)
	require.NoError(t, err)
	seen := map[string]bool{here: true}
	for range 3 {
		var inside string
		New(t).Do(func() (err error) {
			inside, err = os.Readlink(self)
			return err
		})
		assert.False(t, seen[inside])
		seen[inside] = true
	}
	back, err := os.Readlink(self)
	require.NoError(t, err)
	assert.Equal(t, here, back)
}

func FuzzNew(f *testing.F) {
	n := New(f)
	f.Add(uint16(1))
	f.Fuzz(func(t *testing.T, id uint16) {
		require.NotNil(t, n)
		New(t).ICMPEcho(server4.Addr(), id)
	})
}
