//go:build linux

package conntrack_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// dial returns a Conn in ns.
func dial(t testing.TB, ns *nstest.NS) *conntrack.Conn {
	t.Helper()
	c, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// A call is a call of a method with valid arguments.
type call struct {
	name string
	do   func(c *conntrack.Conn) error
}

// calls returns calls of all methods that use a socket, except Close.
func calls() []call {
	f := newFlow(1)
	return []call{
		{"Create", func(c *conntrack.Conn) error { return c.Create(f) }},
		{"Update", func(c *conntrack.Conn) error { return c.Update(f) }},
		{"CreateOrUpdate", func(c *conntrack.Conn) error { return c.CreateOrUpdate(f) }},
		{"Delete", func(c *conntrack.Conn) error { return c.Delete(f) }},
		{"GetBatch", func(c *conntrack.Conn) error {
			for _, err := range c.GetBatch([]conntrack.Flow{f}) {
				return err
			}
			return errors.New("no pair")
		}},
		{"UpdateFunc", func(c *conntrack.Conn) error {
			_, err := c.UpdateFunc(context.Background(), conntrack.Filter{}, func(*conntrack.Flow) (conntrack.Flow, bool) {
				return conntrack.Flow{}, false
			})
			return err
		}},
		{"UpdateExpect", func(c *conntrack.Conn) error {
			ex := newExpect(f, server4)
			ex.Timeout = 1
			return c.UpdateExpect(ex)
		}},
		{"GetExpect", func(c *conntrack.Conn) error {
			_, err := c.GetExpect(newExpect(f, server4))
			return err
		}},
		{"DeleteExpect", func(c *conntrack.Conn) error { return c.DeleteExpect(newExpect(f, server4)) }},
		{"FlushExpect", func(c *conntrack.Conn) error { return c.FlushExpect() }},
		{"FlushExpectHelper", func(c *conntrack.Conn) error { return c.FlushExpectHelper("ftp") }},
		{"ExpectsOf", func(c *conntrack.Conn) error {
			for _, err := range c.ExpectsOf(context.Background(), f) {
				return err
			}
			return nil
		}},
		{"Dying", func(c *conntrack.Conn) error {
			for _, err := range c.Dying(context.Background()) {
				return err
			}
			return nil
		}},
		{"Unconfirmed", func(c *conntrack.Conn) error {
			for _, err := range c.Unconfirmed(context.Background()) {
				return err
			}
			return nil
		}},
		{"CreateExpect", func(c *conntrack.Conn) error { return c.CreateExpect(newExpect(f, server4)) }},
		{"Flush", func(c *conntrack.Conn) error { return c.Flush() }},
		{"FlushFilter", func(c *conntrack.Conn) error { return c.FlushFilter(conntrack.Filter{Mark: 1, Mask: 1}) }},
		{"Get", func(c *conntrack.Conn) error {
			_, err := c.Get(f)
			return err
		}},
		{"Dump", func(c *conntrack.Conn) error {
			_, err := c.Dump(nil)
			return err
		}},
		{"DumpFilter", func(c *conntrack.Conn) error {
			_, err := c.DumpFilter(conntrack.Filter{Mark: 1, Mask: 1}, nil)
			return err
		}},
		{"DumpExpect", func(c *conntrack.Conn) error {
			_, err := c.DumpExpect()
			return err
		}},
		{"Flows", func(c *conntrack.Conn) error {
			for _, err := range c.Flows(context.Background(), conntrack.Filter{}, nil) {
				return err
			}
			return nil
		}},
		{"Expects", func(c *conntrack.Conn) error {
			for _, err := range c.Expects(context.Background()) {
				return err
			}
			return nil
		}},
		{"Stats", func(c *conntrack.Conn) error {
			_, err := c.Stats()
			return err
		}},
		{"StatsExpect", func(c *conntrack.Conn) error {
			_, err := c.StatsExpect()
			return err
		}},
		{"StatsGlobal", func(c *conntrack.Conn) error {
			_, err := c.StatsGlobal()
			return err
		}},
		{"Settings", func(c *conntrack.Conn) error {
			_, err := c.Settings()
			return err
		}},
		{"CreateBatch", func(c *conntrack.Conn) error { return c.CreateBatch([]conntrack.Flow{f, newFlow(2), newFlow(3)}) }},
		{"UpdateBatch", func(c *conntrack.Conn) error { return c.UpdateBatch([]conntrack.Flow{f, newFlow(2), newFlow(3)}) }},
		{"DeleteBatch", func(c *conntrack.Conn) error { return c.DeleteBatch([]conntrack.Flow{f, newFlow(2), newFlow(3)}) }},
		{"DeleteFunc", func(c *conntrack.Conn) error {
			_, err := c.DeleteFunc(context.Background(), conntrack.Filter{}, func(*conntrack.Flow) bool { return true })
			return err
		}},
		{"Events", func(c *conntrack.Conn) error {
			ctx, cancel := context.WithCancel(context.Background())
			opts := &conntrack.EventOptions{Joined: cancel}
			for _, err := range c.Events(ctx, netfilter.GroupsCT, opts) {
				if !errors.Is(err, context.Canceled) {
					return err
				}
			}
			return nil
		}},
		{"Listen", func(c *conntrack.Conn) error {
			_, err := c.Listen(make(chan conntrack.Event), 1, netfilter.GroupsCT)
			return err
		}},
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())

	all := append(calls(),
		call{"SetOption", func(c *conntrack.Conn) error { return c.SetOption(netlink.NoENOBUFS, true) }},
		call{"SetReadBuffer", func(c *conntrack.Conn) error { return c.SetReadBuffer(4096) }},
		call{"SetWriteBuffer", func(c *conntrack.Conn) error { return c.SetWriteBuffer(4096) }},
	)
	for _, call := range all {
		t.Run(call.name, func(t *testing.T) {
			requireOpError(t, call.do(c), fs.ErrClosed)
		})
	}
}

// requireOpError asserts that err has the type that its method returns, and
// wraps want.
func requireOpError(t testing.TB, err, want error) {
	t.Helper()
	require.ErrorIs(t, err, want)
	var op *conntrack.OpError
	var batch *conntrack.BatchError
	require.True(t, errors.As(err, &op) || errors.As(err, &batch), "%T", err)
}

// TestUnprivileged asserts that without the privilege, errors say that it is
// missing, and that the Conn works once it is there.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	create(t, c, newFlow(1))
	for _, call := range calls() {
		t.Run(call.name, func(t *testing.T) {
			var err error
			ns.Do(func() error {
				return withoutCapability(unix.CAP_NET_ADMIN, func() { err = call.do(c) })
			})
			requireOpError(t, err, fs.ErrPermission)
			require.ErrorIs(t, err, unix.EPERM)
			require.ErrorContains(t, err, "root")
			require.ErrorContains(t, err, "CAP_NET_ADMIN")
		})
	}
	require.NoError(t, c.Delete(newFlow(1)))
	listen(t, c, netfilter.GroupsCT)
}

// TestNetAdmin asserts that nothing needs CAP_SYS_ADMIN if the thread is
// already in the namespace.
func TestNetAdmin(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	ns.Do(func() error {
		return withoutCapability(unix.CAP_SYS_ADMIN, func() {
			c, err := conntrack.Dial(nil)
			require.NoError(t, err)
			defer c.Close()
			for _, call := range calls() {
				if call.name == "CreateExpect" {
					continue // needs a master
				}
				err := call.do(c)
				switch call.name {
				case "Get", "GetBatch", "UpdateExpect", "GetExpect", "DeleteExpect", "ExpectsOf": // the entries do not exist
					require.ErrorIs(t, err, unix.ENOENT)
				default:
					require.NoError(t, err, call.name)
				}
			}
		})
	})
}

// withoutCapability calls fn without the capability. The calling thread must be
// locked; other threads keep the capability.
func withoutCapability(capability int, fn func()) (err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	before := data
	data[capability/32].Effective &^= 1 << (capability % 32)
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	defer func() { err = unix.Capset(&header, &before[0]) }()
	fn()
	return nil
}

// TestBadInput asserts that invalid arguments are found before anything is
// sent: the error is the same on a closed Conn.
func TestBadInput(t *testing.T) {
	t.Parallel()
	good, good6 := newFlow(1), newFlow6(1)
	tuple := good.TupleOrig
	mixed := tuple
	mixed.IP.DestinationAddress = good6.TupleOrig.IP.DestinationAddress
	long := strings.Repeat("x", 70_000)

	type method = func(*conntrack.Conn, conntrack.Flow) error
	methods := map[string]method{
		"Create": (*conntrack.Conn).Create,
		"Update": (*conntrack.Conn).Update,
		"Delete": (*conntrack.Conn).Delete,
		"Get": func(c *conntrack.Conn, f conntrack.Flow) error {
			_, err := c.Get(f)
			return err
		},
	}

	type test struct {
		name string
		do   func(c *conntrack.Conn) error
		want error
		text string
	}
	var tests []test
	badFlow := func(method, what string, f conntrack.Flow, want error, text string) {
		tests = append(tests, test{method + " " + what, func(c *conntrack.Conn) error { return methods[method](c, f) }, want, text})
	}
	for name := range methods {
		badFlow(name, "without tuples", conntrack.Flow{Timeout: 1}, conntrack.ErrNeedTuples, "tuple")
		badFlow(name, "original of two families", with(good, func(f *conntrack.Flow) { f.TupleOrig = mixed }), conntrack.ErrBadIPTuple, "family")
		badFlow(name, "reply of two families", with(good, func(f *conntrack.Flow) { f.TupleReply = mixed }), conntrack.ErrBadIPTuple, "family")
		for what, half := range halfGiven(tuple) {
			badFlow(name, "with a tuple "+what, conntrack.Flow{Timeout: 1, TupleOrig: half}, conntrack.ErrNeedTuples, "tuple")
		}
		badFlow(name, "with reply of another family", with(good, func(f *conntrack.Flow) { f.TupleReply = good6.TupleReply }),
			conntrack.ErrBadIPTuple, "family")
	}
	badFlow("Create", "master of two families", with(good, func(f *conntrack.Flow) { f.TupleMaster = mixed }), conntrack.ErrBadIPTuple, "family")
	badFlow("Create", "without reply", with(good, func(f *conntrack.Flow) { f.TupleReply = conntrack.Tuple{} }),
		conntrack.ErrNeedTuples, "a new one needs both")
	badFlow("Create", "without original", with(good, func(f *conntrack.Flow) { f.TupleOrig = conntrack.Tuple{} }),
		conntrack.ErrNeedTuples, "a new one needs both")
	badFlow("Create", "without timeout", with(good, func(f *conntrack.Flow) { f.Timeout = 0 }), conntrack.ErrNeedTimeout, "timeout")
	badFlow("Update", "with master", with(good, func(f *conntrack.Flow) { f.TupleMaster = tuple }), conntrack.ErrUpdateMaster, "TupleMaster")
	for _, name := range []string{"Create", "Update"} {
		badFlow(name, "with long helper", with(good, func(f *conntrack.Flow) { f.Helper.Name = long }), nil, "70001 bytes")
		badFlow(name, "with long helper info", with(good, func(f *conntrack.Flow) { f.Helper = conntrack.Helper{Name: "ftp", Info: []byte(long)} }), nil, "70000 bytes")
		badFlow(name, "with helper info alone", with(good, func(f *conntrack.Flow) { f.Helper.Info = []byte{1} }), conntrack.ErrNeedHelper, "helper")
		badFlow(name, "with NUL in helper", with(good, func(f *conntrack.Flow) { f.Helper.Name = "ftp\x00junk" }), nil, "NUL")
		badFlow(name, "with helper that just fits", with(good, func(f *conntrack.Flow) { f.Helper.Name = long[:65_529] }), nil, "nested attribute")
		badFlow(name, "with long labels", with(good, func(f *conntrack.Flow) { f.Labels = []byte(long) }), nil, "70000 bytes")
		badFlow(name, "with long labels mask", with(good, func(f *conntrack.Flow) { f.LabelsMask = []byte(long) }), conntrack.ErrBadLabels, "")
	}

	badExpect := func(name string, change func(*conntrack.Expect), want error, text string) {
		ex := newExpect(good, server4)
		change(&ex)
		tests = append(tests, test{"CreateExpect " + name, func(c *conntrack.Conn) error { return c.CreateExpect(ex) }, want, text})
	}
	badExpect("without tuple", func(ex *conntrack.Expect) { ex.Tuple = conntrack.Tuple{} }, conntrack.ErrExpectNeedTuples, "Tuple")
	badExpect("without mask", func(ex *conntrack.Expect) { ex.Mask = conntrack.Tuple{} }, conntrack.ErrExpectNeedTuples, "Mask")
	badExpect("without master", func(ex *conntrack.Expect) { ex.TupleMaster = conntrack.Tuple{} }, conntrack.ErrExpectNeedTuples, "TupleMaster")
	badExpect("with tuple of two families", func(ex *conntrack.Expect) { ex.Tuple = mixed }, conntrack.ErrBadIPTuple, "family")
	badExpect("with mask of another family", func(ex *conntrack.Expect) { ex.Mask = good6.TupleOrig }, conntrack.ErrBadIPTuple, "family")
	badExpect("with NAT of another family", func(ex *conntrack.Expect) { ex.NAT.Tuple = good6.TupleOrig }, conntrack.ErrBadIPTuple, "family")
	badExpect("with long helper", func(ex *conntrack.Expect) { ex.HelpName = long }, nil, "70001 bytes")
	badExpect("with long function", func(ex *conntrack.Expect) { ex.Function = long }, nil, "70001 bytes")
	tests = append(tests, test{"Listen without workers", func(c *conntrack.Conn) error {
		errs, err := c.Listen(make(chan conntrack.Event), 0, netfilter.GroupsCT)
		require.Nil(t, errs)
		return err
	}, conntrack.ErrNoWorkers, "worker"})

	ns := nstest.New(t)
	c := dial(t, ns)
	closed := dial(t, ns)
	require.NoError(t, closed.Close())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []*conntrack.Conn{c, closed} {
				err := tt.do(c)
				require.Error(t, err)
				require.NotErrorIs(t, err, fs.ErrClosed)
				require.ErrorContains(t, err, tt.text)
				require.LessOrEqual(t, len(err.Error()), 1000)
				if tt.want != nil {
					require.ErrorIs(t, err, tt.want)
				}
				var op *conntrack.OpError
				require.ErrorAs(t, err, &op)
				var errno unix.Errno
				require.NotErrorAs(t, err, &errno)
			}
		})
	}
	require.Zero(t, ns.Count())
	// The Conn still works.
	create(t, c, good)
	requireFlow(t, good, dumpOne(t, c))
}

// TestOpError asserts what an error tells programs, and that it contains the
// kernel's text.
func TestOpError(t *testing.T) {
	t.Parallel()
	c := dial(t, nstest.New(t))
	f := flowBetween(unix.IPPROTO_TCP, client4, server4)

	err := c.Delete(f)
	var op *conntrack.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "delete flow", op.Op)
	require.Equal(t, f.TupleOrig, op.Tuple)
	var nl *netlink.OpError
	require.ErrorAs(t, err, &nl)
	require.Equal(t, unix.ENOENT, nl.Err)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, "conntrack: delete flow <tcp, Src: 127.0.0.2:40000, Dst: 127.0.0.1:8080>: no such flow")

	_, err = c.Get(conntrack.Flow{TupleReply: f.TupleReply})
	require.ErrorAs(t, err, &op)
	require.Equal(t, f.TupleReply, op.Tuple)

	f.Labels = make([]byte, 20)
	err = c.Create(f)
	require.ErrorIs(t, err, unix.ERANGE)
	require.ErrorAs(t, err, &nl)
	require.NotEmpty(t, nl.Message)
	require.NotZero(t, nl.Offset)
	require.ErrorContains(t, err, nl.Message)
}

func TestDialBadNamespace(t *testing.T) {
	nstest.Require(t)
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	leaksNothing(t, func() {
		for name, tt := range map[string]struct {
			fd   int
			want error
		}{
			"closed":       {1 << 20, unix.EBADF},
			"no namespace": {int(null.Fd()), unix.EINVAL},
		} {
			c, err := conntrack.Dial(&netlink.Config{NetNS: tt.fd})
			require.ErrorIs(t, err, tt.want, name)
			require.Nil(t, c, name)
			var op *conntrack.OpError
			require.ErrorAs(t, err, &op, name)
		}
	})
}

// TestNamespace asserts that a Conn stays in the namespace that it was dialed
// for, whatever happens to the descriptor and the thread.
func TestNamespace(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		dial func(ns *nstest.NS) (*conntrack.Conn, error)
	}{
		{"descriptor", func(ns *nstest.NS) (*conntrack.Conn, error) {
			return conntrack.Dial(ns.Config())
		}},
		{"closed descriptor", func(ns *nstest.NS) (*conntrack.Conn, error) {
			fd, err := unix.FcntlInt(uintptr(ns.FD()), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			defer unix.Close(fd)
			return conntrack.Dial(&netlink.Config{NetNS: fd})
		}},
		{"thread", func(ns *nstest.NS) (c *conntrack.Conn, err error) {
			ns.Do(func() error {
				c, err = conntrack.Dial(nil)
				return err
			})
			return c, err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns, elsewhere := nstest.New(t), nstest.New(t)
			c, err := tt.dial(ns)
			require.NoError(t, err)
			defer c.Close()
			// The descriptor's number is reused for a file that is not a
			// namespace.
			null, err := os.Open(os.DevNull)
			require.NoError(t, err)
			defer null.Close()

			// This runs in the process's namespace, in the Conn's and in
			// another one.
			use := func(n int) error {
				if n == 0 {
					listen(t, c, netfilter.GroupsCT)
				}
				create(t, c, newFlow(n))
				flows, err := c.Dump(nil)
				require.NoError(t, err)
				require.Len(t, flows, n+1)
				return nil
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				_ = use(0)
			})
			wg.Wait()
			ns.Do(func() error { return use(1) })
			elsewhere.Do(func() error { return use(2) })
			require.Equal(t, 3, ns.Count())
			require.Zero(t, elsewhere.Count())
		})
	}
}

// TestNamespaceOfEvents asserts that a Conn dialed by a thread in a namespace
// listens there, whichever thread calls it.
func TestNamespaceOfEvents(t *testing.T) {
	t.Parallel()
	ns, elsewhere := nstest.New(t), nstest.New(t)
	var c *conntrack.Conn
	ns.Do(func() (err error) {
		c, err = conntrack.Dial(nil)
		return err
	})
	t.Cleanup(func() { c.Close() })
	events := listen(t, c, netfilter.GroupsCT)

	create(t, dial(t, elsewhere), newFlow(1))
	create(t, dial(t, ns), newFlow(2))
	require.Equal(t, newFlow(2).TupleOrig, receive(t, events).Flow.TupleOrig)
}

func TestOptions(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	c := dial(t, ns)
	set := func() {
		t.Helper()
		for _, enable := range []bool{true, false} {
			require.NoError(t, c.SetOption(netlink.NoENOBUFS, enable))
			require.NoError(t, c.SetOption(netlink.ListenAllNSID, enable))
		}
		require.NoError(t, c.SetReadBuffer(1<<17))
		require.NoError(t, c.SetWriteBuffer(1<<17))
	}
	set()
	events := listen(t, c, netfilter.GroupsCT)
	set()
	create(t, c, newFlow(1))
	receive(t, events)
	requireFlow(t, newFlow(1), dumpOne(t, c))
	set()

	err := c.SetOption(netlink.ConnOption(999), true)
	require.Error(t, err)
	var op *conntrack.OpError
	require.ErrorAs(t, err, &op)
	require.False(t, errors.Is(err, fs.ErrClosed))
	requireFlow(t, newFlow(1), dumpOne(t, c))
}

// TestDroppedCapabilities asserts that a Conn for another namespace works
// completely after the process has dropped the right to enter it. The
// capability cannot be regained, so the test uses a separate process.
func TestDroppedCapabilities(t *testing.T) {
	const child = "CONNTRACK_TEST_DROP_CAPABILITIES"
	ns := nstest.New(t)
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDroppedCapabilities$", "-test.count=1")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	c, err := conntrack.Dial(ns.Config())
	require.NoError(t, err)
	ns.Sysctl("net.netfilter.nf_conntrack_events", "1") // not the default of new kernels
	keepNetAdmin(t)
	require.ErrorIs(t, unix.Setns(ns.FD(), unix.CLONE_NEWNET), unix.EPERM)

	events := listen(t, c, netfilter.GroupsCT)
	for n := range 3 {
		create(t, c, newFlow(n))
		require.Equal(t, conntrack.EventNew, receive(t, events).Type)
	}
	for range 20 { // more than there are spare sockets; each break closes one
		for _, err := range c.Flows(context.Background(), conntrack.Filter{}, nil) {
			require.NoError(t, err)
			break
		}
	}
	flows, err := c.Dump(nil)
	require.NoError(t, err)
	require.Len(t, flows, 3)
	n, err := c.DeleteFunc(context.Background(), conntrack.Filter{}, nil)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	settings, err := c.Settings()
	require.NoError(t, err)
	require.EqualValues(t, 1, settings.Events)
	ctx, cancel := context.WithCancel(context.Background())
	for _, err := range c.Events(ctx, netfilter.GroupsCT, &conntrack.EventOptions{Joined: cancel}) {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, c.Close())
}

// TestFewDescriptors asserts that the error says what is missing, and nothing about
// a namespace, which is not to be entered. The limit is the process's, so a process
// of its own has it.
func TestFewDescriptors(t *testing.T) {
	const child = "CONNTRACK_TEST_FEW_DESCRIPTORS"
	nstest.Require(t)
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFewDescriptors$", "-test.count=1")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	c, err := conntrack.Dial(nil)
	require.NoError(t, err)
	defer c.Close()
	cookies := kernelAtLeast(t, 5, 14)
	limit := unix.Rlimit{Cur: 64, Max: 64}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	var taken []int
	for {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			break
		}
		taken = append(taken, fd)
	}
	_, err = c.Dump(nil)
	requireOpError(t, err, unix.EMFILE)
	require.NotContains(t, err.Error(), "namespace")
	require.NoError(t, unix.Close(taken[0]))
	_, err = c.Dump(nil)
	if cookies { // else comparing namespaces takes descriptors too
		require.NoError(t, err, "one is enough")
	}
}

// keepNetAdmin drops all capabilities except CAP_NET_ADMIN. With cgo, Go cannot
// change them for all threads, so it makes setns fail as if CAP_SYS_ADMIN were
// missing.
func keepNetAdmin(t *testing.T) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errors.Is(errno, syscall.ENOTSUP) {
		denySetns(t)
		return
	}
	require.Zero(t, errno)
}

// denySetns makes setns fail with EPERM in all threads.
func denySetns(t *testing.T) {
	const number = 0 // offset in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SETNS, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	require.Zero(t, errno)
}
