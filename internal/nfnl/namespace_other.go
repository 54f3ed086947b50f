//go:build !linux

package nfnl

import (
	"os"

	"github.com/mdlayher/netlink"
)

type home struct{ close func() }

func newHome(int) (*home, error) { return nil, nil }

func (*home) dial(config *netlink.Config) (*netlink.Conn, error) { return dialNetlink(config) }

func (c *Conn) sameNamespace(*Conn) (bool, error) { return false, errUnsupported }

func (c *Conn) namespace() (*os.File, error) { return nil, errUnsupported }

// InNamespace calls f on a thread in c's network namespace, and returns its error.
func (*Conn) InNamespace(func() error) error { return errUnsupported }
