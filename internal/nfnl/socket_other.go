//go:build !linux

package nfnl

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// There is no netlink on these systems: Dial fails, and nothing else is called, but
// for a Conn on a Link.

var errUnsupported = fmt.Errorf("netlink on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func dialNetlink(*netlink.Config) (*netlink.Conn, error) { return nil, errUnsupported }

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
