package conntrack

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack/internal/nfnl"
)

// Errors about what the caller asked for. Nothing was sent to the kernel. They
// come wrapped in an [*OpError] or a [*BatchError]: test for them with
// errors.Is.
var (
	// ErrNeedTimeout is returned for a new flow without a timeout.
	ErrNeedTimeout = errors.New("a new flow needs a timeout")
	// ErrNeedTuples is returned for a flow with neither an original nor a reply
	// tuple, and for a new flow with only one of them.
	ErrNeedTuples = errors.New("a flow needs an original or a reply tuple")
	// ErrUpdateMaster is returned for an update with TupleMaster.
	ErrUpdateMaster = errors.New("the master of a flow cannot be changed: leave TupleMaster empty")
	// ErrUpdateNAT is returned for an update with NAT.
	ErrUpdateNAT = errors.New("what a flow is translated into cannot be changed: leave NAT empty")
	// ErrBadNAT is returned for a [NATRange] whose ends are the wrong way round
	// or not of the flow's family.
	ErrBadNAT = errors.New("bad NAT range")
	// ErrBadLabels is returned for Labels whose length is no multiple of 4, and
	// for a LabelsMask of another length. For Labels of more than 16 bytes the
	// kernel returns ERANGE.
	ErrBadLabels = errors.New("labels are 4, 8, 12 or 16 bytes, and their mask is as long as they are")
	// ErrTwoZones is returned for a new flow with more than one zone.
	ErrTwoZones = errors.New("a flow has one zone: that for both directions, or one for the original or the reply direction")
	// ErrBadIPTuple is returned for a tuple that lacks an address, and for
	// addresses that are not all IPv4 or all IPv6.
	ErrBadIPTuple = errors.New("a tuple needs two addresses, and all addresses must be of the same family")
	// ErrExpectNeedTuples is returned for an expectation without a tuple that
	// the operation needs: Tuple, Mask and TupleMaster to create or update it,
	// and Tuple alone otherwise.
	ErrExpectNeedTuples = errors.New("an expectation needs Tuple and, to be created or updated, Mask and TupleMaster")
	// ErrNeedHelper is returned for the empty name of a helper.
	ErrNeedHelper = errors.New("the name of the helper is empty")
	// ErrExpectTimeout is returned for an expectation whose timeout is longer
	// than the kernel can count and, in an update, for a timeout of 0.
	ErrExpectTimeout = fmt.Errorf("the timeout of an expectation is 1 to %d seconds", maxExpectTimeout)
	// ErrFilterSelectsNothing is returned for a [Filter] that contradicts
	// itself, so that no flow can agree with all of its fields.
	ErrFilterSelectsNothing = errors.New("the filter contradicts itself")
	// ErrNoChange is returned by [Conn.UpdateFunc] without a function.
	ErrNoChange = errors.New("updating needs a function that says what to change")
	// ErrNoWorkers is returned by [Conn.Listen] with 0 workers.
	ErrNoWorkers = errors.New("listening needs at least one worker")
	errNoGroups  = errors.New("need one or more multicast groups to join")
	// ErrListening is returned by [Conn.Listen] if it was called before.
	ErrListening = errors.New("this Conn is listening already")
)

// ErrDumpInterrupted says that the kernel marked a dump as inconsistent
// (NLM_F_DUMP_INTR): entries may be missing or repeated. Test for it with
// errors.Is.
var ErrDumpInterrupted = nfnl.ErrDumpInterrupted

// ErrUnknownEvent says that a message is not an event that this package knows.
// Test for it with errors.Is.
var ErrUnknownEvent = errors.New("unknown event")

var (
	errNeedBothTuples = fmt.Errorf("%w: a new one needs both, see Tuple.Reverse", ErrNeedTuples)
	errReplaced       = fmt.Errorf("another flow has its place: %w", nfnl.ErrNotFound)
	errHidden         = errors.New("another flow hides it: one that has the same tuple, in a zone that holds for one direction")
)

// An OpError says which operation failed, on what, and why.
type OpError struct {
	// Op is the operation, such as "create flow".
	Op string
	// Tuple identifies the flow or expectation. It is zero for operations on
	// the whole table.
	Tuple Tuple
	// Err is the reason. It wraps the errno if the kernel gave one.
	Err error

	entity string // "flow" or "expectation", or "" for other operations
	hint   string // what to do about the error, or ""
}

// Error returns the operation, the tuple if there is one, the reason, and often
// what to do about it.
func (e *OpError) Error() string {
	where := ""
	if e.Tuple != (Tuple{}) {
		where = " " + e.Tuple.String()
	}
	return "conntrack: " + e.Op + where + ": " + inWords(e.entity, e.Err, e.hint)
}

// Unwrap returns e.Err.
func (e *OpError) Unwrap() error { return e.Err }

// inWords returns the text of an error about a flow or an expectation, followed
// by the hint in brackets.
func inWords(entity string, err error, hint string) string {
	text := err.Error()
	switch {
	case entity == "":
	case errors.Is(err, fs.ErrNotExist):
		text = "no such " + entity
	case errors.Is(err, fs.ErrExist):
		text = entity + " exists"
	}
	if hint != "" {
		text += " (" + hint + ")"
	}
	return text
}

// opError returns err as an *OpError, or nil if err is nil.
func opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Err: err, hint: privilegeHint(err)}
}

// tableError is opError for a request about the whole table.
func tableError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Err: err, hint: cmp.Or(privilegeHint(err), moduleHint(err))}
}

// flowError returns err as an *OpError about f, or nil if err is nil.
func flowError(o op, f *Flow, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: opNames[o], Tuple: f.tuple(), Err: err, entity: "flow", hint: flowHint(o, f, err)}
}

// tuple returns the tuple that stands for f in errors.
func (f *Flow) tuple() Tuple {
	if f.TupleOrig.filled() {
		return f.TupleOrig
	}
	return f.TupleReply
}

const privilege = "run as root, or with CAP_NET_ADMIN in the user namespace that owns the network namespace"

// privilegeHint returns what to do about a lack of privilege, or "".
func privilegeHint(err error) string {
	var inner *OpError
	var call *os.SyscallError
	switch {
	case errors.As(err, &inner), !errors.Is(err, fs.ErrPermission):
		return "" // inner has its own hint, or privilege is not the reason
	case errors.As(err, &call) && call.Syscall == "setns":
		return "to enter another network namespace, Dial takes CAP_SYS_ADMIN"
	}
	return privilege
}

// moduleHint returns what to do if the kernel does not know a request for the
// whole table, or "".
func moduleHint(err error) string {
	var kernel *netlink.OpError
	if errors.As(err, &kernel) && (nfnl.IsInvalid(err) || errors.Is(err, fs.ErrNotExist)) {
		return "if all requests fail like this, load the kernel module nf_conntrack_netlink"
	}
	return ""
}

// flowHint returns what to do about err, the answer to an operation on f, or
// "".
func flowHint(o op, f *Flow, err error) string {
	translated := f.NAT != nil || f.Status.Value&StatusNATMask != 0
	switch {
	case errors.Is(err, nfnl.ErrNoSpace):
		return "a flow has room for labels if it began while a rule of the network namespace used labels: add one, " +
			"such as nftables' \"ct label set 1\" in a chain without a hook"
	case errors.Is(err, nfnl.ErrNoMemory) && o.adds():
		return "the table is full: see the sysctl net.netfilter.nf_conntrack_max; or the kernel has no memory"
	case errors.Is(err, errors.ErrUnsupported) && f.Helper.Name == NoHelper:
		return "kernels from about 7.2 on do not take a flow's helper away: delete the flow"
	case errors.Is(err, errors.ErrUnsupported) && f.Helper.filled():
		return "the kernel has no such helper for the flow's protocol: load its module, such as nf_conntrack_ftp"
	case errors.Is(err, errors.ErrUnsupported) && o.adds() && translated:
		return "translating takes the kernel module nf_nat"
	case errors.Is(err, fs.ErrExist) && o.adds() && translated:
		return "or what it is to be translated into is taken"
	case errors.Is(err, nfnl.ErrBusy) && o.adds():
		return "no new flow can have StatusDying, and none StatusExpected without TupleMaster"
	case errors.Is(err, nfnl.ErrBusy):
		return "Status must hold StatusExpected, StatusSeenReply and StatusAssured where the flow has them: " +
			"leave it 0, unless it is to be changed"
	case errors.Is(err, fs.ErrPermission) && (o == opUpdate || o == opPut):
		return "a flow with StatusFixedTimeout keeps its timeout; otherwise " + privilege
	}
	return privilegeHint(err)
}
