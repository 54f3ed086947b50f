//go:build linux

package nfnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// These are the constants of ctnetlink that the tests use.
const (
	ctNew      = 0
	ctGet      = 1
	ctDelete   = 2
	ctGetStats = 5
)

func dial(t testing.TB, n *nstest.NS) *Conn {
	t.Helper()
	c, err := Dial(n.Config())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// appendTuple appends a UDP tuple over IPv4.
func appendTuple(e *Encoder, typ uint16, src, dst byte, srcPort, dstPort uint16) {
	tuple := e.Nest(typ)
	ip := e.Nest(1)
	e.Bytes(1, []byte{10, 0, 0, src})
	e.Bytes(2, []byte{10, 0, 0, dst})
	e.End(ip)
	proto := e.Nest(2)
	e.Uint8(1, unix.IPPROTO_UDP)
	e.Uint16(2, srcPort)
	e.Uint16(3, dstPort)
	e.End(proto)
	e.End(tuple)
}

// appendCreate appends a request for a flow that differs from others in its
// port.
func appendCreate(e *Encoder, port uint16, flags netlink.HeaderFlags) {
	e.Message(Header{
		SubsystemID: NFSubsysCTNetlink, MessageType: ctNew, Family: netfilter.ProtoIPv4,
		Flags: netlink.Create | netlink.Excl | flags,
	})
	appendTuple(e, 1, 1, 2, port, 53)
	appendTuple(e, 2, 2, 1, 53, port)
	e.Uint32(7, 100) // CTA_TIMEOUT
}

func appendDelete(e *Encoder, port uint16, flags netlink.HeaderFlags) {
	e.Message(Header{SubsystemID: NFSubsysCTNetlink, MessageType: ctDelete, Family: netfilter.ProtoIPv4, Flags: flags})
	appendTuple(e, 1, 1, 2, port, 53)
}

func create(t testing.TB, c *Conn, ports ...uint16) {
	t.Helper()
	var e Encoder
	for _, port := range ports {
		appendCreate(&e, port, 0)
	}
	require.NoError(t, c.DoBatch(&e, func(i int, err error) { t.Errorf("creating flow %d: %v", i, err) }))
}

func ports(first uint16, n int) []uint16 {
	p := make([]uint16, n)
	for i := range p {
		p[i] = first + uint16(i)
	}
	return p
}

// entries returns the number of flows. The flags may ask for an
// acknowledgement.
func entries(t testing.TB, c *Conn, flags netlink.HeaderFlags) (n uint32, err error) {
	t.Helper()
	var e Encoder
	e.Message(Header{SubsystemID: NFSubsysCTNetlink, MessageType: ctGetStats, Flags: flags})
	replies := 0
	err = c.Do(&e, func(m Message) error {
		replies++
		var d Decoder
		for typ, v := range d.Attributes(m.Attributes) {
			if typ == 1 {
				n = d.Uint32(v)
			}
		}
		return d.Err(nil)
	})
	require.Equal(t, 1, replies)
	return n, err
}

func TestRequests(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	create(t, c, ports(1000, 100)...)
	for _, flags := range []netlink.HeaderFlags{0, netlink.Acknowledge} {
		n, err := entries(t, c, flags)
		require.NoError(t, err)
		require.EqualValues(t, 100, n)
	}

	var e Encoder
	e.Message(Header{SubsystemID: NFSubsysCTNetlink, MessageType: ctGet, Flags: netlink.Dump})
	flows := 0
	require.NoError(t, c.Do(&e, func(m Message) error {
		require.Equal(t, netfilter.ProtoIPv4, m.Family)
		require.Equal(t, netlink.Multi, m.Flags&netlink.Multi)
		flows++
		return nil
	}))
	require.Equal(t, 100, flows)
}

// TestConcurrentRequests asserts that each caller gets the answers to its own
// requests.
func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	var wg sync.WaitGroup
	for worker := range uint16(8) {
		wg.Go(func() {
			var e Encoder
			for i := range uint16(20) {
				port := 1000 + worker*100 + i
				e.Reset()
				appendCreate(&e, port, 0)
				appendDelete(&e, port, 0)
				appendDelete(&e, port, 0) // does not exist any more
				appendCreate(&e, port, 0)
				assert.NoError(t, c.DoBatch(&e, func(i int, err error) {
					assert.Equal(t, 2, i)
					assert.ErrorIs(t, err, unix.ENOENT)
				}))

				e.Reset()
				e.Message(Header{SubsystemID: NFSubsysCTNetlink, MessageType: ctGet, Family: netfilter.ProtoIPv4})
				appendTuple(&e, 1, 1, 2, port, 53)
				assert.NoError(t, c.Do(&e, func(m Message) error {
					assert.Equal(t, strconv.Itoa(int(port)), sourcePort(t, m.Attributes))
					return nil
				}))
			}
		})
	}
	wg.Wait()
	n, err := entries(t, c, 0)
	require.NoError(t, err)
	require.EqualValues(t, 8*20, n)
}

// TestKernelText asserts that an error contains the kernel's text.
func TestKernelText(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	var e Encoder
	appendCreate(&e, 1000, netlink.Acknowledge)
	e.Uint8(3, 1) // CTA_STATUS has four bytes
	err := c.Do(&e, nil)
	require.ErrorIs(t, err, unix.ERANGE)
	var opErr *netlink.OpError
	require.ErrorAs(t, err, &opErr)
	require.NotEmpty(t, opErr.Message)
	require.Equal(t, e.Len()-8, opErr.Offset, "that of the last attribute")
}

// stranger is a socket in n that does not belong to the kernel.
type stranger struct {
	t  testing.TB
	fd int
}

func newStranger(t testing.TB, n *nstest.NS) stranger {
	t.Helper()
	s := stranger{t: t}
	n.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// send sends a message to the socket of c.
func (s stranger) send(c *Conn, b []byte) {
	s.t.Helper()
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.PortID()}
	require.NoError(s.t, unix.Sendto(s.fd, b, 0, to))
}

// TestForeignSender asserts that messages from other programs are counted but
// have no effect, even if they look like the answer.
func TestForeignSender(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	c, s := dial(t, n), newStranger(t, n)
	create(t, c, 1000)

	for _, forged := range [][]byte{refusal(2, unix.EIO), ack(3), reply(4, 0, 9), {1}} {
		s.send(c, forged)
		flows, err := entries(t, c, netlink.Acknowledge)
		require.NoError(t, err)
		require.EqualValues(t, 1, flows, "the kernel's answer")
	}
	require.EqualValues(t, 4, c.Foreign())

	sibling, err := c.Sibling()
	require.NoError(t, err)
	defer sibling.Close()
	s.send(sibling, ack(1))
	_, err = entries(t, sibling, netlink.Acknowledge)
	require.NoError(t, err)
	require.EqualValues(t, 5, c.Foreign(), "those of siblings too")

	s.send(c, ack(6))
	var e Encoder
	appendDelete(&e, 1000, 0)
	appendDelete(&e, 1001, 0)
	var failed []int
	require.NoError(t, c.DoBatch(&e, func(i int, err error) {
		require.ErrorIs(t, err, fs.ErrNotExist)
		failed = append(failed, i)
	}), "every outcome is known")
	require.Equal(t, []int{1}, failed)
}

func TestReceiverForeignSender(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	c, listener, s := dial(t, n), dial(t, n), newStranger(t, n)
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTNew))
	r, err := listener.NewReceiver()
	require.NoError(t, err)

	create(t, c, 1000)
	s.send(listener, reply(0, netlink.Create, 9))
	create(t, c, 1001)
	events, faults := receiveEvents(t, r, 2)
	require.Equal(t, []string{"new 1000", "new 1001"}, events)
	require.Empty(t, faults)
	require.EqualValues(t, 1, listener.Foreign())
}

// receiveEvents receives n messages. It returns each event as its type and
// source port.
func receiveEvents(t testing.TB, r *Receiver, n int) (events []string, faults []error) {
	t.Helper()
	require.NoError(t, r.c.SetDeadline(time.Now().Add(10*time.Second)))
	for len(events)+len(faults) < n {
		require.NoError(t, r.Receive(func(m Message, err error) bool {
			if err != nil {
				faults = append(faults, err)
			} else {
				events = append(events, describe(t, m))
			}
			return true
		}))
	}
	return events, faults
}

func describe(t testing.TB, m Message) string {
	t.Helper()
	require.Equal(t, NFSubsysCTNetlink, m.SubsystemID)
	require.Equal(t, netfilter.ProtoIPv4, m.Family)
	require.Equal(t, -1, m.NSID)
	kind := "new "
	if m.MessageType == ctDelete {
		kind = "destroy "
	}
	return kind + sourcePort(t, m.Attributes)
}

// sourcePort returns CTA_TUPLE_ORIG: CTA_TUPLE_PROTO: CTA_PROTO_SRC_PORT.
func sourcePort(t testing.TB, attributes []byte) string {
	t.Helper()
	var d Decoder
	for typ, v := range d.Attributes(attributes) {
		if typ != 1 {
			continue
		}
		for typ, v := range d.Attributes(v) {
			if typ != 2 {
				continue
			}
			for typ, v := range d.Attributes(v) {
				if typ == 2 {
					return strconv.Itoa(int(d.Uint16(v)))
				}
			}
		}
	}
	assert.NoError(t, d.Err(nil))
	return "?"
}

// TestReceiver asserts that events arrive in order, many with one system call.
func TestReceiver(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	c, listener := dial(t, n), dial(t, n)
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTNew))
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTDestroy))
	require.NoError(t, listener.SetReadBuffer(1<<20))
	r, err := listener.NewReceiver()
	require.NoError(t, err)

	var want []string
	for _, port := range ports(1000, 100) {
		create(t, c, port)
		want = append(want, "new "+strconv.Itoa(int(port)))
	}
	var e Encoder
	appendDelete(&e, 1042, netlink.Acknowledge)
	require.NoError(t, c.Do(&e, nil))
	want = append(want, "destroy 1042")

	first := 0
	var got []string
	require.NoError(t, r.Receive(func(m Message, err error) bool {
		require.NoError(t, err)
		got = append(got, describe(t, m))
		first++
		return true
	}))
	require.Equal(t, eventBatch, first)
	rest, faults := receiveEvents(t, r, len(want)-first)
	require.Empty(t, faults)
	require.Equal(t, want, append(got, rest...))
}

// overrunReceiver creates flows, from port 1000 on, and returns a Receiver
// whose Conn has lost some of their events. It also returns a Conn for further
// requests.
func overrunReceiver(t *testing.T, created int) (*Receiver, *Conn) {
	t.Helper()
	n := nstest.New(t)
	c, listener := dial(t, n), dial(t, n)
	require.NoError(t, listener.SetReadBuffer(1)) // the kernel raises it to its minimum
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTNew))
	r, err := listener.NewReceiver()
	require.NoError(t, err)
	create(t, c, ports(1000, created)...)
	return r, c
}

// TestReceiverOverrun asserts that an overrun is reported where the gap is, and
// that receiving continues.
func TestReceiverOverrun(t *testing.T) {
	t.Parallel()
	const created = 20
	r, c := overrunReceiver(t, created)
	var got []string
	err := r.Receive(func(m Message, err error) bool {
		require.NoError(t, err)
		got = append(got, describe(t, m))
		return true
	})
	require.ErrorIs(t, err, ErrOverrun)
	require.ErrorIs(t, err, unix.ENOBUFS)
	require.NotEmpty(t, got)
	require.Less(t, len(got), created)
	for i := range got {
		require.Equal(t, "new "+strconv.Itoa(1000+i), got[i])
	}

	create(t, c, 2000)
	got, faults := receiveEvents(t, r, 1)
	require.Empty(t, faults)
	require.Equal(t, []string{"new 2000"}, got)
}

// TestReceiversOverrun asserts that one of several Receivers reports an overrun
// even if no event follows.
func TestReceiversOverrun(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	c, listener := dial(t, n), dial(t, n)
	require.NoError(t, listener.SetReadBuffer(96<<10)) // room for more than one Receiver reads at once
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTNew))
	create(t, c, ports(1000, 1000)...)

	// The Receiver that sees the overrun passes its events while the others
	// read the rest and wait for more.
	passing, all := make(chan struct{}), make(chan struct{})
	told := make(chan error)
	var receivers sync.WaitGroup
	for range 8 {
		r, err := listener.NewReceiver()
		require.NoError(t, err)
		receivers.Go(func() {
			for {
				err := r.Receive(func(Message, error) bool {
					select {
					case passing <- struct{}{}:
						<-all
					case <-all:
					}
					return true
				})
				if errors.Is(err, fs.ErrClosed) {
					return
				}
				if err != nil {
					told <- err
				}
			}
		})
	}
	<-passing
	<-passing
	close(all)
	select {
	case err := <-told:
		require.ErrorIs(t, err, ErrOverrun)
	case <-time.After(10 * time.Second):
		t.Error("no Receiver told of the overrun")
	}
	require.NoError(t, listener.Close())
	receivers.Wait()
}

// TestReceiverIdle asserts that Idle is called after all events were passed,
// and only before the Receiver waits.
func TestReceiverIdle(t *testing.T) {
	t.Parallel()
	const created = eventBatch + 10
	n := nstest.New(t)
	c, listener := dial(t, n), dial(t, n)
	require.NoError(t, listener.SetReadBuffer(1<<20))
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTNew))
	r, err := listener.NewReceiver()
	require.NoError(t, err)
	create(t, c, ports(1000, created)...)

	passed := 0
	var idle []int // number of events passed before each call
	r.Idle = func() {
		if idle = append(idle, passed); len(idle) == 3 {
			require.NoError(t, listener.SetDeadline(time.Unix(1, 0)))
			return
		}
		create(t, c, uint16(5000+len(idle)))
	}
	for err == nil {
		err = r.Receive(func(_ Message, err error) bool {
			passed++
			return assert.NoError(t, err)
		})
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Equal(t, []int{created, created + 1, created + 2}, idle)
}

func TestSetBPF(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	c, listener := dial(t, n), dial(t, n)
	// The program drops all but IPCTNL_MSG_CT_DELETE. The position of that byte
	// depends on the machine's byte order.
	typ := uint32(4)
	if !littleEndian {
		typ = 5
	}
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typ, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: ctDelete, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 0xffff},
	})
	require.NoError(t, err)
	require.NoError(t, listener.SetBPF(program))
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTNew))
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTDestroy))
	r, err := listener.NewReceiver()
	require.NoError(t, err)

	create(t, c, 1000, 1001)
	var e Encoder
	appendDelete(&e, 1001, netlink.Acknowledge)
	require.NoError(t, c.Do(&e, nil))
	events, faults := receiveEvents(t, r, 1)
	require.Empty(t, faults)
	require.Equal(t, []string{"destroy 1001"}, events)
}

// TestNSID asserts that events of another namespace carry its id.
func TestNSID(t *testing.T) {
	t.Parallel()
	const id = 7
	here, there := nstest.New(t), nstest.New(t)
	assignNSID(t, here, there, id)

	listener := dial(t, here)
	require.NoError(t, listener.SetOption(netlink.ListenAllNSID, true))
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTNew))
	r, err := listener.NewReceiver()
	require.NoError(t, err)
	create(t, dial(t, there), 1000)
	create(t, dial(t, here), 1001)

	var got []int
	require.NoError(t, listener.SetDeadline(time.Now().Add(10*time.Second)))
	for len(got) < 2 {
		require.NoError(t, r.Receive(func(m Message, err error) bool {
			require.NoError(t, err)
			got = append(got, m.NSID)
			return true
		}))
	}
	require.Equal(t, []int{id, -1}, got)
}

// assignNSID assigns id to the namespace there within the namespace here.
func assignNSID(t *testing.T, here, there *nstest.NS, id uint32) {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, here.Config())
	require.NoError(t, err)
	defer conn.Close()
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NETNSA_FD, Data: binary.NativeEndian.AppendUint32(nil, uint32(there.FD()))},
		{Type: unix.NETNSA_NSID, Data: binary.NativeEndian.AppendUint32(nil, id)},
	})
	require.NoError(t, err)
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWNSID, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(make([]byte, 4), attributes...), // struct rtgenmsg
	})
	require.NoError(t, err)
}

// TestSibling asserts that a sibling is in the namespace of its Conn, wherever
// Sibling is called.
func TestSibling(t *testing.T) {
	t.Parallel()
	n, other := nstest.New(t), nstest.New(t)
	c := dial(t, n)
	create(t, c, 1000)
	check := func() error {
		s, err := c.Sibling()
		if err != nil {
			return err
		}
		defer s.Close()
		require.NotEqual(t, c.PortID(), s.PortID())
		same, err := c.sameNamespace(s)
		require.NoError(t, err)
		require.True(t, same)
		flows, err := entries(t, s, 0)
		require.EqualValues(t, 1, flows)
		return err
	}
	require.NoError(t, check(), "from the namespace of the test")
	n.Do(check)
	other.Do(check)
}

// TestSiblingOfProcess asserts that a Conn in the process's own namespace,
// which keeps no thread, has its siblings in that namespace.
func TestSiblingOfProcess(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	c, err := Dial(nil)
	require.NoError(t, err)
	defer c.Close()
	require.Nil(t, c.home)
	n.Do(func() error {
		stray, err := open(nil, &netlink.Config{})
		require.NoError(t, err)
		defer stray.Close()
		same, err := c.sameNamespace(stray)
		require.NoError(t, err)
		require.False(t, same)

		s, err := c.Sibling()
		require.NoError(t, err)
		defer s.Close()
		same, err = c.sameNamespace(s)
		require.NoError(t, err)
		require.True(t, same)
		return nil
	})
}

// TestInNamespace asserts that a function runs in the Conn's namespace, wherever it
// is called from, and that its error comes back.
func TestInNamespace(t *testing.T) {
	t.Parallel()
	n, other := nstest.New(t), nstest.New(t)
	for name, config := range map[string]*netlink.Config{"process": nil, "home": n.Config()} {
		c, err := Dial(config)
		require.NoError(t, err)
		failure := errors.New("failure")
		check := func() error {
			require.ErrorIs(t, c.InNamespace(func() error {
				s, err := open(nil, &netlink.Config{})
				if err != nil {
					return err
				}
				defer s.Close()
				same, err := c.sameNamespace(s)
				assert.NoError(t, err)
				assert.True(t, same, name)
				return failure
			}), failure)
			return nil
		}
		check()
		n.Do(check)
		other.Do(check)
		require.NoError(t, c.Close())
		require.ErrorIs(t, c.InNamespace(func() error { return nil }), ErrClosed)
	}
}

// TestHomeEnds asserts that the thread of a Conn in another namespace ends when
// the Conn is closed, and is never the main thread of the process.
func TestHomeEnds(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	for range 50 {
		c, err := Dial(n.Config())
		require.NoError(t, err)
		ids := make(chan int, 1)
		c.home.jobs <- func() { ids <- unix.Gettid() }
		tid := <-ids
		require.NoError(t, c.Close())
		require.NotEqual(t, unix.Getpid(), tid)
		require.Eventually(t, func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			return errors.Is(err, fs.ErrNotExist)
		}, 10*time.Second, time.Millisecond)
	}
}

// TestSiblingSettings asserts that a sibling inherits the settings.
func TestSiblingSettings(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.False(t, c.HasReadBuffer())
	require.NoError(t, c.SetReadBuffer(50_000))
	require.NoError(t, c.SetWriteBuffer(40_000))
	require.NoError(t, c.SetOption(netlink.NoENOBUFS, true))
	s, err := c.Sibling()
	require.NoError(t, err)
	defer s.Close()
	require.True(t, s.HasReadBuffer())
	size, err := s.nl.ReadBuffer()
	require.NoError(t, err)
	require.Equal(t, 100_000, size)
	size, err = s.nl.WriteBuffer()
	require.NoError(t, err)
	require.Equal(t, 80_000, size)
	require.Equal(t, 1, option(t, s, unix.NETLINK_NO_ENOBUFS))

	again, err := s.Sibling()
	require.NoError(t, err)
	defer again.Close()
	require.Equal(t, 1, option(t, again, unix.NETLINK_NO_ENOBUFS), "a sibling's sibling")
}

// option returns a netlink option of the socket of c.
func option(t *testing.T, c *Conn, name int) (value int) {
	t.Helper()
	var err error
	require.NoError(t, c.raw.Control(func(fd uintptr) {
		value, err = unix.GetsockoptInt(int(fd), unix.SOL_NETLINK, name)
	}))
	require.NoError(t, err)
	return value
}

// TestMaxBatch asserts that if all messages of a full batch fail, each error is
// reported.
func TestMaxBatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		readBuffer int
	}{
		{"default buffer", 0},
		{"least buffer", 1},
		{"small buffer", 8 << 10},
		{"large buffer", 1 << 20},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, nstest.New(t))
			if tt.readBuffer > 0 {
				require.NoError(t, c.SetReadBuffer(tt.readBuffer))
			}
			messages, bytes := c.MaxBatch()
			require.Positive(t, messages)
			require.Positive(t, bytes)
			if tt.readBuffer > 8<<10 {
				require.Greater(t, messages, 50)
			}

			// Errors are longest with the kernel's text.
			var e Encoder
			for i := range messages {
				if e.Len() >= bytes {
					messages = i
					break
				}
				appendCreate(&e, 1000, 0)
				e.Uint8(3, 1) // CTA_STATUS has four bytes
			}
			var failed []int
			require.NoError(t, c.DoBatch(&e, func(i int, err error) {
				require.ErrorIs(t, err, unix.ERANGE)
				failed = append(failed, i)
			}))
			require.Len(t, failed, messages)
			for i := range messages {
				require.Equal(t, i, failed[i])
			}
		})
	}
}

// TestCloseReceiver asserts that Close interrupts a waiting Receiver.
func TestCloseReceiver(t *testing.T) {
	t.Parallel()
	c, err := Dial(nstest.New(t).Config())
	require.NoError(t, err)
	require.NoError(t, c.JoinGroup(netfilter.GroupCTNew))
	r, err := c.NewReceiver()
	require.NoError(t, err)
	ended := make(chan error)
	go func() { ended <- r.Receive(func(Message, error) bool { return true }) }()
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-ended, fs.ErrClosed)
	require.NoError(t, c.Close(), "twice")

	_, receiverErr := c.NewReceiver()
	_, siblingErr := c.Sibling()
	for name, err := range map[string]error{
		"JoinGroup":      c.JoinGroup(netfilter.GroupCTNew),
		"SetOption":      c.SetOption(netlink.NoENOBUFS, true),
		"SetReadBuffer":  c.SetReadBuffer(1 << 20),
		"SetWriteBuffer": c.SetWriteBuffer(1 << 20),
		"SetBPF":         c.SetBPF(nil),
		"SetDeadline":    c.SetDeadline(time.Now()),
		"NewReceiver":    receiverErr,
		"Sibling":        siblingErr,
		"Do":             c.Do(request(netlink.Acknowledge, 1), nil),
		"DoBatch":        c.DoBatch(request(0, 2), nil),
	} {
		require.ErrorIs(t, err, fs.ErrClosed, name)
		require.ErrorIs(t, err, unix.EBADF, name)
	}
}

// TestBufferSizes asserts that sizes that the kernel would change are refused.
func TestBufferSizes(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	for _, size := range []int{math.MinInt, -1, 0, 1 << 30, math.MaxInt} {
		require.ErrorIs(t, c.SetReadBuffer(size), fs.ErrInvalid, size)
		require.ErrorIs(t, c.SetWriteBuffer(size), fs.ErrInvalid, size)
	}
	require.False(t, c.HasReadBuffer())
	for _, size := range []int{1, 1<<30 - 1} {
		require.NoError(t, c.SetReadBuffer(size))
		require.NoError(t, c.SetWriteBuffer(size))
		read, err := c.nl.ReadBuffer()
		require.NoError(t, err)
		write, err := c.nl.WriteBuffer()
		require.NoError(t, err)
		if size == 1 {
			require.Less(t, read, 10_000)
			require.Less(t, write, 10_000)
			continue
		}
		require.Greater(t, read, 100_000)
		require.Greater(t, write, 100_000)
	}
}

// TestDeadlineReceiver asserts that a deadline interrupts a waiting Receiver,
// and that later events are received.
func TestDeadlineReceiver(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	c, listener := dial(t, n), dial(t, n)
	require.NoError(t, listener.JoinGroup(netfilter.GroupCTNew))
	r, err := listener.NewReceiver()
	require.NoError(t, err)
	ended := make(chan error)
	go func() { ended <- r.Receive(func(Message, error) bool { return true }) }()
	require.NoError(t, listener.SetDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
	create(t, c, 1000)
	events, _ := receiveEvents(t, r, 1)
	require.Equal(t, []string{"new 1000"}, events)
}

// TestBadNamespace asserts that Dial returns an error for a bad namespace that
// says what is wrong.
func TestBadNamespace(t *testing.T) {
	t.Parallel()
	nstest.Require(t)
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	_, err = Dial(&netlink.Config{NetNS: int(f.Fd())})
	require.ErrorIs(t, err, unix.EINVAL)
}
