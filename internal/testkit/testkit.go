// Package testkit leads package conntracktest to what package conntrack does not
// export.
package testkit

import (
	"github.com/ti-mo/conntrack/internal/nfnl"
	"github.com/ti-mo/conntrack/internal/release"
)

// NewKernel returns a function that makes Conns which speak to one kernel, of the
// given release and with sysctls whose names begin with nf_conntrack_, each from the
// socket for its requests. They are of the type *conntrack.Conn. Package conntrack sets
// it.
var NewKernel func(r release.Release, sysctl func(name string) (uint32, error)) (newConn func(*nfnl.Conn) any)
