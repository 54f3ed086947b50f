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

// Errors about what the caller asked for. Nothing was sent to the kernel.
var (
	// ErrNeedTimeout: a flow without a timeout was to be created.
	ErrNeedTimeout = errors.New("a new flow needs a timeout")
	// ErrNeedTuples: a flow has neither an original nor a reply tuple, or a new flow
	// has only one of them.
	ErrNeedTuples = errors.New("a flow needs an original or a reply tuple")
	// ErrUpdateMaster: TupleMaster is set in an update.
	ErrUpdateMaster = errors.New("the master of a flow cannot be changed: leave TupleMaster empty")
	// ErrUpdateNAT: NAT is set in an update.
	ErrUpdateNAT = errors.New("what a flow is translated into cannot be changed: leave NAT empty")
	// ErrBadNAT: a NATRange is no range, or not of the flow's family.
	ErrBadNAT = errors.New("bad NAT range")
	// ErrBadLabels: the length of Labels is no multiple of 4, or LabelsMask is not
	// as long. (To more than 16 bytes the kernel answers ERANGE.)
	ErrBadLabels = errors.New("labels are 4, 8, 12 or 16 bytes, and their mask is as long as they are")
	// ErrTwoZones: a new flow has more than one zone.
	ErrTwoZones = errors.New("a flow has one zone: that for both directions, or one for the original or the reply direction")
	// ErrBadIPTuple: a tuple lacks an address, or not all addresses are IPv4 or
	// all IPv6.
	ErrBadIPTuple = errors.New("a tuple needs two addresses, and all addresses must be of the same family")
	// ErrExpectNeedTuples: an expectation lacks Tuple or, if it is to be created or
	// updated, Mask or TupleMaster.
	ErrExpectNeedTuples = errors.New("an expectation needs Tuple and, to be created or updated, Mask and TupleMaster")
	// ErrNeedHelper: the name of a helper is empty.
	ErrNeedHelper = errors.New("the name of the helper is empty")
	// ErrExpectTimeout: the timeout of an expectation is longer than the kernel can
	// count, or, in an update, zero.
	ErrExpectTimeout = fmt.Errorf("the timeout of an expectation is 1 to %d seconds", maxExpectTimeout)
	// ErrFilterSelectsNothing: no flow can agree with all fields of a Filter.
	ErrFilterSelectsNothing = errors.New("the filter contradicts itself")
	// ErrNoChange: UpdateFunc was called without a function.
	ErrNoChange = errors.New("updating needs a function that says what to change")
	// ErrNoWorkers: Listen was called with 0 workers.
	ErrNoWorkers = errors.New("listening needs at least one worker")
	errNoGroups  = errors.New("need one or more multicast groups to join")
	// ErrListening: Listen was called twice.
	ErrListening = errors.New("this Conn is listening already")
)

// ErrDumpInterrupted says that the kernel marked a dump as inconsistent
// (NLM_F_DUMP_INTR): entries may be missing, or there twice.
var ErrDumpInterrupted = nfnl.ErrDumpInterrupted

// ErrUnknownEvent says that a message is no event that this package knows.
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
	// Tuple says which flow or expectation it was for. It is zero for
	// operations on the whole table.
	Tuple Tuple
	// Err is the reason. If it is the kernel's, it wraps an errno.
	Err error

	entity string // "flow" or "expectation", what the operation is about
	hint   string // what to do about it
}

// Error returns the text of the error.
func (e *OpError) Error() string {
	where := ""
	if e.Tuple != (Tuple{}) {
		where = " " + e.Tuple.String()
	}
	return "conntrack: " + e.Op + where + ": " + inWords(e.entity, e.Err, e.hint)
}

// Unwrap returns e.Err.
func (e *OpError) Unwrap() error { return e.Err }

// inWords returns the text of an error about a flow or an expectation, with what
// to do about it in brackets.
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

// opError returns err as an *OpError, or nil.
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

// flowError returns err as an *OpError about f, or nil.
func flowError(o op, f *Flow, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: opNames[o], Tuple: f.tuple(), Err: err, entity: "flow", hint: flowHint(o, f, err)}
}

// tuple returns the tuple that f is named by.
func (f *Flow) tuple() Tuple {
	if f.TupleOrig.filled() {
		return f.TupleOrig
	}
	return f.TupleReply
}

const privilege = "run as root, or with CAP_NET_ADMIN in the user namespace that owns the network namespace"

// privilegeHint returns what to do about a lack of privilege.
func privilegeHint(err error) string {
	var inner *OpError
	var call *os.SyscallError
	switch {
	case errors.As(err, &inner), !errors.Is(err, fs.ErrPermission):
		return "" // it says so itself, or it is something else
	case errors.As(err, &call) && call.Syscall == "setns":
		return "another network namespace takes CAP_SYS_ADMIN, for each socket"
	}
	return privilege
}

// moduleHint returns what to do about a request for the whole table that the kernel
// does not know.
func moduleHint(err error) string {
	var kernel *netlink.OpError
	if errors.As(err, &kernel) && (nfnl.IsInvalid(err) || errors.Is(err, fs.ErrNotExist)) {
		return "if all requests fail like this, load the kernel module nf_conntrack_netlink"
	}
	return ""
}

// flowHint returns what to do about the kernel's answer to an operation on f.
func flowHint(o op, f *Flow, err error) string {
	translated := f.NAT != nil || f.Status.Value&StatusNATMask != 0
	switch {
	case errors.Is(err, nfnl.ErrNoSpace):
		return "a flow has room for labels if it began while a rule of the network namespace used labels: add one, " +
			"such as nftables' \"ct label set 1\" in a chain without a hook"
	case errors.Is(err, nfnl.ErrNoMemory) && o.adds():
		return "the table is full: see the sysctl net.netfilter.nf_conntrack_max; or the kernel has no memory"
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
	case f.Helper.Name == NoHelper && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
		return "kernels from about 7.2 on do not take a flow's helper away: delete the flow"
	}
	return privilegeHint(err)
}
