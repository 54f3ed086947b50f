//go:build !linux

package nfnl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// There is no netlink here: Dial fails, and the rest is never called.

var (
	errUnsupported   = fmt.Errorf("netlink on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	errNoBufferSpace = errors.New("no buffer space available")
	errNoSpace       = errors.New("no space left")
	errNotFound      = fs.ErrNotExist
	errBusy          = errors.New("busy")
	errNoMemory      = errors.New("out of memory")
)

func dialNetlink(*netlink.Config) (*netlink.Conn, error) { return nil, errUnsupported }

func errno(int32) error { return errUnsupported }

// IsInvalid reports whether the kernel refused a request since it is malformed.
func IsInvalid(error) bool { return false }

type requestIO struct{}

func newRequestIO(syscall.RawConn) *requestIO { return &requestIO{} }

func (*requestIO) send([]byte) error        { return errUnsupported }
func (*requestIO) receive() ([]byte, error) { return nil, errUnsupported }

type eventIO struct{}

func newEventIO(syscall.RawConn) *eventIO { return &eventIO{} }

func (*eventIO) receive(bool) (int, error)    { return 0, errUnsupported }
func (*eventIO) datagram(int) ([]byte, error) { return nil, errUnsupported }
func (*eventIO) nsid(int) int                 { return -1 }

func (c *Conn) namespace() (*os.File, error) { return nil, errUnsupported }

func sleep(time.Duration) {}

func sameFile(_, _ *os.File) bool { return false }
