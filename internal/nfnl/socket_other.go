//go:build !linux

package nfnl

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// There is no netlink on these systems: Dial fails, and nothing else is called.

var (
	errUnsupported   = fmt.Errorf("netlink on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	errNoBufferSpace = errors.New("no buffer space available")
	errNoSpace       = errors.New("no space left")
	errBadFile       = errors.New("bad file descriptor")
	errNotFound      = fs.ErrNotExist
	errBusy          = errors.New("busy")
	errNoMemory      = errors.New("out of memory")
)

func dialNetlink(*netlink.Config) (*netlink.Conn, error) { return nil, errUnsupported }

func errno(int32) error { return errUnsupported }

// IsInvalid reports whether the kernel refused a request as malformed.
func IsInvalid(error) bool { return false }

type requestIO struct{}

func newRequestIO(syscall.RawConn) *requestIO { return &requestIO{} }

func (*requestIO) send([]byte) error        { return errUnsupported }
func (*requestIO) receive() ([]byte, error) { return nil, errUnsupported }

type eventIO struct{}

func newEventIO(syscall.RawConn) *eventIO { return &eventIO{} }

func (*eventIO) receive(bool) (int, error)    { return 0, errUnsupported }
func (*eventIO) foreign(int) bool             { return false }
func (*eventIO) datagram(int) ([]byte, error) { return nil, errUnsupported }
func (*eventIO) nsid(int) int                 { return -1 }

func sleep(time.Duration) {}
