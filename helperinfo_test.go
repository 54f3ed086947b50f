//go:build linux

package conntrack_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/nstest"
	"github.com/ti-mo/conntrack/netfilter"
)

// helperRequest sends a message to the kernel's list of helpers in user space
// (linux/netfilter/nfnetlink_cthelper.h), which is one for all network
// namespaces.
func helperRequest(t *testing.T, typ nfnl.MessageType, flags netlink.HeaderFlags, attributes func(*nfnl.Encoder)) error {
	t.Helper()
	conn, err := nfnl.Dial(nil)
	require.NoError(t, err)
	defer conn.Close()
	var e nfnl.Encoder
	e.Message(nfnl.Header{SubsystemID: 9 /* NFNL_SUBSYS_CTHELPER */, MessageType: typ, Flags: netlink.Acknowledge | flags})
	attributes(&e)
	return conn.Do(&e, nil)
}

// newUserHelper makes a helper in user space for UDP, which has n bytes of its
// own in each flow.
func newUserHelper(t *testing.T, name string, n uint32) {
	t.Helper()
	nstest.Require(t)
	err := helperRequest(t, 0, netlink.Create, func(e *nfnl.Encoder) { // NFNL_MSG_CTHELPER_NEW
		e.String(1, name) // NFCTH_NAME
		tuple := e.Nest(2)
		e.Uint16(1, uint16(netfilter.ProtoIPv4)) // NFCTH_TUPLE_L3PROTONUM
		e.Uint8(2, unix.IPPROTO_UDP)             // NFCTH_TUPLE_L4PROTONUM
		e.End(tuple)
		e.Uint32(3, 0) // NFCTH_QUEUE_NUM
		policies := e.Nest(4)
		e.Uint32(1, 1) // NFCTH_POLICY_SET_NUM
		policy := e.Nest(2)
		e.String(1, "policy") // NFCTH_POLICY_NAME
		e.Uint32(2, 1)        // NFCTH_POLICY_EXPECT_MAX
		e.Uint32(3, 300)      // NFCTH_POLICY_EXPECT_TIMEOUT
		e.End(policy)
		e.End(policies)
		e.Uint32(5, n) // NFCTH_PRIV_DATA_LEN
	})
	if nfnl.IsInvalid(err) || errors.Is(err, fs.ErrPermission) {
		t.Skipf("helpers in user space take the kernel's nfnetlink_cthelper and the machine's CAP_NET_ADMIN: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, helperRequest(t, 2, 0, func(e *nfnl.Encoder) { e.String(1, name) })) // NFNL_MSG_CTHELPER_DEL
	})
}

// TestHelperInfo sets and reads what a helper keeps of a flow.
func TestHelperInfo(t *testing.T) {
	t.Parallel()
	newUserHelper(t, "conntrack-test", 8)
	c := dial(t, nstest.New(t))
	f := newFlow(1)
	f.Helper = conntrack.Helper{Name: "conntrack-test", Info: []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	create(t, c, f)
	require.Equal(t, f.Helper, dumpOne(t, c).Helper)

	f.Helper.Info = []byte{8, 7, 6, 5, 4, 3, 2, 1}
	require.NoError(t, c.Update(conntrack.Flow{TupleOrig: f.TupleOrig, Helper: f.Helper}))
	require.Equal(t, f.Helper, dumpOne(t, c).Helper)
	require.NoError(t, c.Delete(f))
}
