package cttimeout

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/ti-mo/conntrack/internal/nfnl"
)

// These errors are about arguments. Nothing was sent to the kernel.
var (
	// ErrBadName means that the name of a policy is empty, too long, or
	// contains a NUL byte.
	ErrBadName = errors.New("the name of a policy has 1 to 31 bytes, and none of them is NUL")
	// ErrBadFamily means that a policy is for neither IPv4 nor IPv6.
	ErrBadFamily = errors.New("a policy is for netfilter.ProtoIPv4 or for netfilter.ProtoIPv6")
	// ErrBadState means that a [State] is unknown or belongs to another
	// protocol.
	ErrBadState = errors.New("no such timeout")
	// ErrBadTimeout means that a timeout is not in whole seconds, is negative,
	// or exceeds [MaxTimeout].
	ErrBadTimeout = fmt.Errorf("a timeout is of whole seconds, from 0 to %v", MaxTimeout)
)

// An OpError says which operation failed, on which policy, and why.
type OpError struct {
	// Op is the operation, such as "create policy".
	Op string
	// Name is the name of the policy. It is empty for operations on all
	// policies or on the defaults.
	Name string
	// Err is the reason. It wraps an errno if it comes from the kernel.
	Err error
}

// Error returns the operation, the policy and the reason, with a hint at the cause
// for some reasons.
func (e *OpError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("cttimeout: %s: %v%s", e.Op, e.Err, hint(e.Op, e.Err))
	}
	return fmt.Sprintf("cttimeout: %s %q: %v%s", e.Op, e.Name, e.Err, hint(e.Op, e.Err))
}

// Unwrap returns e.Err.
func (e *OpError) Unwrap() error { return e.Err }

const (
	opDial        = "dial"
	opClose       = "close"
	opCreate      = "create policy"
	opSet         = "set policy"
	opGet         = "get policy"
	opDump        = "dump policies"
	opDelete      = "delete policy"
	opFlush       = "flush policies"
	opDefaults    = "get default timeouts"
	opSetDefaults = "set default timeouts"
)

// hint returns a likely cause, in parentheses, for an error that does not name
// one.
func hint(op string, err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return " (run as root, or with CAP_NET_ADMIN in the user namespace that owns the network namespace)"
	case op == opSet && nfnl.IsInvalid(err):
		return " (a policy keeps the family and the protocol that it was created with)"
	case nfnl.IsInvalid(err):
		return " (the kernel may lack nfnetlink_cttimeout)"
	case errors.Is(err, errors.ErrUnsupported) && op != opDial:
		return " (the kernel does not track this protocol)"
	}
	return ""
}

// opError returns err as an *OpError, or nil.
func opError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Name: name, Err: err}
}
