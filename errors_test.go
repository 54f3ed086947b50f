//go:build linux

package conntrack

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestErrorTexts asserts that an error says what to do about it. Errors that
// the kernel returns for many reasons are distinguished by the request.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	f := NewFlow(ProtocolTCP, 0, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1, 2, 3, 4)
	with := func(change func(*Flow)) *Flow {
		f := f
		change(&f)
		return &f
	}
	plain := with(func(*Flow) {})
	helped := with(func(f *Flow) { f.Helper.Name = "ftp" })
	translated := with(func(f *Flow) { f.NAT = new(NAT) })
	unhelped := with(func(f *Flow) { f.Helper.Name = NoHelper })
	const noHint = ""
	for _, tt := range []struct {
		name  string
		op    op
		flow  *Flow
		errno unix.Errno
		text  string
		hint  string
	}{
		{"table full", opCreate, plain, unix.ENOMEM, "cannot allocate memory", "nf_conntrack_max"},
		{"no memory for an update", opUpdate, plain, unix.ENOMEM, "cannot allocate memory", noHint},
		{"unknown helper", opCreate, helped, unix.EOPNOTSUPP, "operation not supported", "nf_conntrack_ftp"},
		{"unknown helper in an update", opUpdate, helped, unix.EOPNOTSUPP, "operation not supported", "nf_conntrack_ftp"},
		{"no NAT", opPut, translated, unix.EOPNOTSUPP, "operation not supported", "nf_nat"},
		{"not supported", opDelete, plain, unix.EOPNOTSUPP, "operation not supported", noHint},
		{"exists", opCreate, plain, unix.EEXIST, "flow exists", noHint},
		{"mapped port is taken", opCreate, translated, unix.EEXIST, "flow exists", "or what it is to be translated into is taken"},
		{"no such flow", opGet, plain, unix.ENOENT, "no such flow", noHint},
		{"no such flow to delete", opDelete, plain, unix.ENOENT, "no such flow", noHint},
		{"status of a new flow", opCreate, plain, unix.EBUSY, "device or resource busy", "StatusDying"},
		{"status of an update", opUpdate, plain, unix.EBUSY, "device or resource busy", "StatusSeenReply"},
		{"no room for labels", opCreate, plain, unix.ENOSPC, "no space left", "ct label set"},
		{"helper stays", opUpdate, unhelped, unix.EOPNOTSUPP, "operation not supported", "7.2"},
		{"helper of no flow", opUpdate, unhelped, unix.ENOENT, "no such flow", noHint},
		{"no privilege", opCreate, plain, unix.EPERM, "operation not permitted", "CAP_NET_ADMIN"},
		{"no privilege, or a fixed timeout", opUpdate, plain, unix.EPERM, "operation not permitted", "StatusFixedTimeout"},
		{"something else", opCreate, plain, unix.EINVAL, "invalid argument", noHint},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kernel := &netlink.OpError{Op: "receive", Err: tt.errno}
			single := flowError(tt.op, tt.flow, kernel)
			batch := &BatchError{Op: opNames[tt.op], Total: 5, Failed: []FlowError{{
				Index: 3, Tuple: tt.flow.TupleOrig, Err: kernel, hint: flowHint(tt.op, tt.flow, kernel),
			}}}
			for _, err := range []error{single, batch} {
				require.ErrorIs(t, err, tt.errno)
				require.ErrorContains(t, err, "conntrack: "+opNames[tt.op])
				require.ErrorContains(t, err, tt.flow.TupleOrig.String())
				require.ErrorContains(t, err, tt.text)
				if tt.hint == noHint {
					require.NotContains(t, err.Error(), "(")
				} else {
					require.Regexp(t, `\(.*`+tt.hint+`.*\)$`, err.Error())
				}
			}
		})
	}
}

// TestTableErrorTexts asserts the same for requests about the whole table.
func TestTableErrorTexts(t *testing.T) {
	t.Parallel()
	for errno, hint := range map[unix.Errno]string{
		unix.EINVAL: "nf_conntrack_netlink",
		unix.ENOENT: "nf_conntrack_netlink",
		unix.EPERM:  "CAP_NET_ADMIN",
		unix.EBUSY:  "",
	} {
		err := tableError("dump flows", &netlink.OpError{Op: "receive", Err: errno})
		require.ErrorIs(t, err, errno)
		if hint == "" {
			require.NotContains(t, err.Error(), "(")
		} else {
			require.Regexp(t, `\(.*`+hint+`.*\)$`, err.Error())
		}
	}
	require.NotContains(t, tableError("dump flows", fs.ErrNotExist).Error(), "(", "it is not the kernel's")
	inner := flowError(opUpdate, new(Flow), unix.EPERM)
	require.NotContains(t, opError("update flows", errors.Join(inner)).Error(), "))", "one hint")
}

// TestFlushFamilies asserts what happens if the kernel does not flush all
// families at once, like Linux 4.4, or refuses for another reason.
func TestFlushFamilies(t *testing.T) {
	t.Parallel()
	const all, ipv4, ipv6 = netfilter.ProtoUnspec, netfilter.ProtoIPv4, netfilter.ProtoIPv6
	type families = []netfilter.ProtoFamily
	for _, tt := range []struct {
		name    string
		family  netfilter.ProtoFamily
		refused map[netfilter.ProtoFamily]error
		asked   families
		want    error
	}{
		{"one request", all, nil, families{all}, nil},
		{"one family", ipv6, nil, families{ipv6}, nil},
		{"Linux 4.4", all, map[netfilter.ProtoFamily]error{all: unix.EINVAL}, families{all, ipv4, ipv6}, nil},
		{"refused", all, map[netfilter.ProtoFamily]error{all: unix.EPERM}, families{all}, unix.EPERM},
		{"one family refused", ipv4, map[netfilter.ProtoFamily]error{ipv4: unix.EINVAL}, families{ipv4}, unix.EINVAL},
		{
			"each is refused", all,
			map[netfilter.ProtoFamily]error{all: unix.EINVAL, ipv4: unix.EOPNOTSUPP}, families{all, ipv4}, unix.EINVAL,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked families
			err := flushFamilies(tt.family, func(family netfilter.ProtoFamily) error {
				asked = append(asked, family)
				return tt.refused[family]
			})
			require.Equal(t, tt.want, err)
			require.Equal(t, tt.asked, asked)
		})
	}
}

// TestBatchFailsInTheMiddle asserts the result if receiving fails after two of
// four answers: one refuses a flow, the other makes the batch try another key.
func TestBatchFailsInTheMiddle(t *testing.T) {
	t.Parallel()
	f := NewFlow(ProtocolTCP, 0, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1, 2, 3, 4)
	b := &batch{op: opDelete}
	for i := range 4 {
		b.sent = append(b.sent, &batchFlow{index: i, flow: &f, attempt: attempt{opDelete, f.key()}})
	}
	b.refused(1, unix.EBUSY)
	b.refused(2, unix.ENOENT)
	b.failRest(nfnl.ErrNoReply)

	failed := make(map[int]error)
	for _, e := range b.failed {
		failed[e.index] = e.err
	}
	require.Len(t, b.failed, 3)
	require.Equal(t, map[int]error{0: nfnl.ErrNoReply, 1: unix.EBUSY, 3: nfnl.ErrNoReply}, failed)
	require.Equal(t, []batchFlow{{index: 2, flow: &f, attempt: attempt{opDelete, looseKey}, first: unix.ENOENT}}, b.waiting)
}

// TestKeyNext asserts which key is tried after one has failed.
func TestKeyNext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		key   key
		flow  Flow
		err   error
		again bool
	}{
		{"found", exactKey, Flow{}, nil, false},
		{"the wrong way round", exactKey, Flow{}, unix.ENOENT, true},
		{"gone", exactKey, Flow{ID: 1}, unix.ENOENT, false},
		{"gone from a zone, or hidden", exactKey, Flow{ID: 1, Zone: 1}, unix.ENOENT, true},
		{"hidden", exactKey, Flow{ID: 1, Zone: 1}, errHidden, true},
		{"replaced", exactKey, Flow{ID: 1, Zone: 1}, errReplaced, false},
		{"a kernel without zones", exactKey, Flow{ID: 1}, unix.EOPNOTSUPP, true},
		{"refused", exactKey, Flow{}, unix.EPERM, false},
		{"nothing else to try", looseKey, Flow{}, unix.ENOENT, false},
	} {
		k, again := tt.key.next(&tt.flow, tt.err)
		require.Equal(t, tt.again, again, tt.name)
		if again {
			require.Equal(t, looseKey, k)
		}
	}
}

// TestCheck asserts what counts as the same flow, as its successor, and as
// another flow.
func TestCheck(t *testing.T) {
	t.Parallel()
	flow := NewFlow(ProtocolTCP, 0, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1, 2, 3, 4)
	flow.ID, flow.Timestamp.Start = 7, time.Unix(100, 0)
	for name, tt := range map[string]struct {
		change func(f, got *Flow)
		want   error
	}{
		"the same":                 {func(_, _ *Flow) {}, nil},
		"a wish":                   {func(f, got *Flow) { f.ID, got.TupleOrig = 0, got.TupleReply }, nil},
		"without start":            {func(f, _ *Flow) { f.Timestamp = Timestamp{} }, nil},
		"another ID":               {func(_, got *Flow) { got.ID++ }, errReplaced},
		"another start":            {func(_, got *Flow) { got.Timestamp.Start = time.Unix(101, 0) }, errReplaced},
		"another tuple":            {func(_, got *Flow) { got.ID, got.TupleOrig = 8, got.TupleReply }, errHidden},
		"another zone":             {func(_, got *Flow) { got.ID, got.Zone = 8, 1 }, errHidden},
		"another ID, by the reply": {func(f, got *Flow) { f.TupleOrig, got.ID = Tuple{}, 8 }, errReplaced},
	} {
		f, got := flow, flow
		tt.change(&f, &got)
		require.Equal(t, tt.want, f.check(&got), name)
	}
}
