//go:build linux

package conntrack

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/internal/release"
	"github.com/ti-mo/conntrack/netfilter"
	"golang.org/x/sys/unix"
)

// captureGoldens writes the files of the running kernel. What it receives with
// is a bare socket, so that the messages are not what this package makes of
// them.
func captureGoldens(t *testing.T) {
	nstest.Require(t)
	running, err := release.Running()
	require.NoError(t, err)
	dir := filepath.Join("testdata", running.String())
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, g := range goldens {
		if g.until != (release.Release{}) && !running.Less(g.until) {
			continue
		}
		t.Run("capture/"+g.name, func(t *testing.T) {
			message, value := captureGolden(t, &g)
			r := record{
				Kernel:    kernelRelease(t),
				About:     g.about,
				ByteOrder: nativeOrder().String(),
				Message:   hex.EncodeToString(message),
				Type:      fmt.Sprintf("%T", value),
				Value:     valueJSON(t, value),
			}
			file := filepath.Join(dir, g.name+".json")
			writeRecord(t, file, r)
			if os.Getenv(captureVariable) != "" {
				printFile(t, file)
			}
		})
	}
}

// printFile prints a file in base64, in lines that nothing breaks.
func printFile(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	for part := range slices.Chunk(b, 60) {
		fmt.Printf("\ngolden: %s %s\n", file, base64.StdEncoding.EncodeToString(part))
	}
}

func kernelRelease(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	return unix.ByteSliceToString(name.Release[:])
}

// captureGolden returns the message and what it decodes to.
func captureGolden(t *testing.T, g *golden) (message []byte, value any) {
	n := nstest.New(t, g.opts...)
	s := openBare(t, n)
	var next func() []byte
	if g.kind.request == nil {
		for _, group := range slices.Concat(netfilter.GroupsCT, netfilter.GroupsCTExp) {
			require.NoError(t, unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)))
		}
		g.traffic(t, n)
		next = s.next
	} else {
		g.traffic(t, n)
		next = s.replies(*g.kind.request)
	}
	for b := next(); b != nil; b = next() {
		v, err := g.kind.decode(parseMessage(b))
		require.NoError(t, err, "%x", b)
		if g.pick != nil && !g.pick(v) {
			continue
		}
		if message != nil {
			require.Fail(t, "more than one message", "%x\n%x", message, b)
		}
		message, value = b, v
		if g.kind.request == nil {
			break
		}
	}
	require.NotNil(t, message)
	return message, value
}

// A bareSocket is a netlink socket without anything around it.
type bareSocket struct {
	t    *testing.T
	fd   int
	rest []byte // of the last datagram
}

func openBare(t *testing.T, n *nstest.NS) *bareSocket {
	s := &bareSocket{t: t}
	n.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	t.Cleanup(func() { unix.Close(s.fd) })
	require.NoError(t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	require.NoError(t, unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	return s
}

// next returns the next message.
func (s *bareSocket) next() []byte {
	s.t.Helper()
	if len(s.rest) == 0 {
		buf := make([]byte, 1<<16)
		size, _, err := unix.Recvfrom(s.fd, buf, 0)
		require.NoError(s.t, err)
		s.rest = buf[:size]
	}
	size := binary.NativeEndian.Uint32(s.rest)
	b := s.rest[:size:size]
	s.rest = s.rest[(size+3)&^3:]
	return b
}

// replies sends a request, and returns a function that returns its replies, and
// then nil.
func (s *bareSocket) replies(h nfnl.Header) func() []byte {
	s.t.Helper()
	request := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+sizeofNfgenmsg)
	request = binary.NativeEndian.AppendUint16(request, uint16(h.SubsystemID)<<8|uint16(h.MessageType))
	request = binary.NativeEndian.AppendUint16(request, uint16(netlink.Request|netlink.Acknowledge|h.Flags))
	request = append(request, make([]byte, 8+sizeofNfgenmsg)...)
	require.NoError(s.t, unix.Sendto(s.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	return func() []byte {
		b := s.next()
		switch typ := binary.NativeEndian.Uint16(b[4:]); typ {
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			return nil
		default:
			return b
		}
	}
}

func dialIn(t *testing.T, n *nstest.NS, fn func(c *Conn) error) {
	t.Helper()
	c, err := Dial(n.Config())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, fn(c))
}

func newGoldenFlow(proto uint8) Flow {
	return NewFlow(proto, 0, client4.Addr(), server4.Addr(), client4.Port(), server4.Port(), 600, 0)
}

func createFlow(t *testing.T, n *nstest.NS, f Flow) {
	t.Helper()
	dialIn(t, n, func(c *Conn) error { return c.Create(f) })
}

func dumpFlows(t *testing.T, n *nstest.NS) (flows []Flow) {
	t.Helper()
	dialIn(t, n, func(c *Conn) (err error) {
		flows, err = c.Dump(nil)
		return err
	})
	return flows
}

// ftpPort lets an FTP client say where it expects the data connection.
func ftpPort(t *testing.T, n *nstest.NS) *nstest.TCPPair {
	n.Helper("ftp", unix.IPPROTO_TCP, server4.Port())
	p := n.TCP(client4, server4)
	ftpCommand(t, p, "PORT 127,0,0,2,200,10")
	return p
}

// ftpCommand sends a command, on the calling thread. The helper looks for one
// where a line that it has seen ended, hence the line before it.
func ftpCommand(t *testing.T, p *nstest.TCPPair, command string) {
	t.Helper()
	for _, line := range []string{"NOOP\r\n", command + "\r\n"} {
		_, err := p.Client.Write([]byte(line))
		require.NoError(t, err)
		_, err = io.ReadFull(p.Server, make([]byte, len(line)))
		require.NoError(t, err)
	}
}

// natFTP does so through a translation of the client's address. The server
// receives two bytes more than the client sent, and answers, so that the kernel
// has adjusted both directions.
func natFTP(t *testing.T, n *nstest.NS) {
	n.SNAT(unix.IPPROTO_TCP, server4, other4)
	p := ftpPort(t, n)
	rest := make([]byte, 2)
	_, err := p.Server.Read(rest)
	require.NoError(t, err)
	require.Equal(t, "\r\n", string(rest))
	p.Reply([]byte("200 OK\r\n"))
}

// onCPU1 lets the packets of the traffic be tracked on CPU 1: over loopback, the
// CPU that sends them is the one that receives them.
func onCPU1(traffic func(*testing.T, *nstest.NS)) func(*testing.T, *nstest.NS) {
	return func(t *testing.T, n *nstest.NS) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var before, cpu1 unix.CPUSet
		require.NoError(t, unix.SchedGetaffinity(0, &before))
		cpu1.Set(1)
		require.NoError(t, unix.SchedSetaffinity(0, &cpu1))
		defer func() { require.NoError(t, unix.SchedSetaffinity(0, &before)) }()
		traffic(t, n)
	}
}

// busy makes the kernel count what it counts seldom. What is not tracked, and
// what its helpers see, passes them twice over loopback: as it goes out and as it
// comes in.
func busy(t *testing.T, n *nstest.NS) {
	n.Raw(unix.IPPROTO_TCP, client4.Addr(), server4.Addr(), []byte("short"))
	n.Raw(unix.IPPROTO_TCP, client4.Addr(), server4.Addr(), []byte("short"))
	// Two flows are to be translated to the same.
	n.SNAT(unix.IPPROTO_UDP, server4, other4)
	n.UDP(client4, server4, false)
	n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		err = unix.Sendto(fd, []byte("ping"), 0, &unix.SockaddrInet4{Port: int(server4.Port()), Addr: server4.Addr().As4()})
		require.ErrorIs(t, err, unix.EPERM)
		return nil
	})
	createFlow(t, n, newGoldenFlow(unix.IPPROTO_TCP))
}
