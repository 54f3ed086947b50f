//go:build !linux

package nfnl

import (
	"errors"
	"fmt"
	"io/fs"
)

// A linuxError is an error by the number that Linux gives it. It is also the error
// of this system that has the same name.
type linuxError int32

// The errors of Linux that this package knows by itself.
const (
	eperm            linuxError = 1
	errNotFound      linuxError = 2
	errBadFile       linuxError = 9
	errNoMemory      linuxError = 12
	errBusy          linuxError = 16
	eexist           linuxError = 17
	einval           linuxError = 22
	errNoSpace       linuxError = 28
	erange           linuxError = 34
	eopnotsupp       linuxError = 95
	errNoBufferSpace linuxError = 105
)

func errno(code int32) error { return linuxError(code) }

func (e linuxError) Error() string {
	if err := e.Unwrap(); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("Linux error %d", int32(e))
}

// Unwrap returns this system's error of the same name, or nil.
func (e linuxError) Unwrap() error { return systemErrors[int32(e)] }

// Is reports whether target is what package fs or errors calls e.
func (e linuxError) Is(target error) bool {
	switch target {
	case fs.ErrPermission:
		return e == eperm
	case fs.ErrNotExist:
		return e == errNotFound
	case fs.ErrExist:
		return e == eexist
	case errors.ErrUnsupported:
		return e == eopnotsupp
	}
	return false
}

// IsInvalid reports whether the kernel refused a request since it is malformed
// (EINVAL, or ERANGE for the length of an attribute).
func IsInvalid(err error) bool { return errors.Is(err, einval) || errors.Is(err, erange) }

// ErrorNumber returns Linux's number for an error of this system.
func ErrorNumber(err error) (code int32, ok bool) {
	var number linuxError
	if errors.As(err, &number) {
		return int32(number), true
	}
	for code, system := range systemErrors {
		if errors.Is(err, system) {
			return code, true
		}
	}
	return 0, false
}
