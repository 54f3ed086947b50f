package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// Errors about what the caller asked for. Nothing was sent to the kernel.
var (
	// ErrNeedTimeout: a flow without a timeout was to be created.
	ErrNeedTimeout = errors.New("a new flow needs a timeout")
	// ErrNeedTuples: a flow has neither an original nor a reply tuple.
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
	// ErrExpectNeedTuples: an expectation lacks Tuple, Mask or TupleMaster.
	ErrExpectNeedTuples = errors.New("an expectation needs Tuple, Mask and TupleMaster")
	// ErrExpectNeedTuple: an expectation that is to be found lacks Tuple.
	ErrExpectNeedTuple = errors.New("an expectation is found by its Tuple")
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

// An OpError says which operation failed, on what, and why.
type OpError struct {
	// Op is the operation, such as "create flow".
	Op string
	// Tuple says which flow or expectation it was for. It is zero for
	// operations on the whole table.
	Tuple Tuple
	// Err is the reason. If it is the kernel's, it wraps an errno.
	Err error
}

func (e *OpError) Error() string {
	if e.Tuple == (Tuple{}) {
		return fmt.Sprintf("conntrack: %s: %v%s", e.Op, e.Err, hint(e.Op, e.Err))
	}
	return fmt.Sprintf("conntrack: %s %s: %v%s", e.Op, e.Tuple, e.Err, hint(e.Op, e.Err))
}

// hint returns what to do about an error that does not say so, in brackets.
func hint(op string, err error) string {
	var inner *OpError
	if errors.As(err, &inner) {
		return "" // it has said so itself
	}
	if errors.Is(err, nfnl.ErrNoSpace) {
		return " (a flow has room for labels if it began while a rule of the network namespace used labels: add one, " +
			"such as nftables' \"ct label set 1\" in a chain without a hook)"
	}
	if !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	var call *os.SyscallError
	if errors.As(err, &call) && call.Syscall == "setns" {
		return " (to enter another network namespace takes CAP_SYS_ADMIN)"
	}
	const privilege = "run as root, or with CAP_NET_ADMIN in the user namespace that owns the network namespace"
	if op == opNames[opUpdate] || op == opNames[opPut] {
		return " (a flow with StatusFixedTimeout keeps its timeout; otherwise " + privilege + ")"
	}
	return " (" + privilege + ")"
}

// Unwrap returns e.Err.
func (e *OpError) Unwrap() error { return e.Err }

// opError returns err as an *OpError, or nil.
func opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Err: err}
}

// flowError returns err as an *OpError about f, or nil.
func flowError(op string, f *Flow, err error) error {
	if err == nil {
		return nil
	}
	t := f.TupleOrig
	if !t.filled() {
		t = f.TupleReply
	}
	return &OpError{Op: op, Tuple: t, Err: err}
}
