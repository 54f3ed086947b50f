//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestMain(m *testing.M) {
	nstest.Main(m)
}

func TestDemonstrate(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out bytes.Buffer
	nstest.New(t, nstest.NoTracking()).Do(func() error { return demonstrate(ctx, &out) })
	t.Log(out.String())
	assert.Contains(t, out.String(), "All steps gave what they should.")
}

// TestInspect asserts that the flows in the table are shown, up to the limit,
// and are not changed.
func TestInspect(t *testing.T) {
	n := nstest.New(t, nstest.Accounting())
	from, to := n.UDP(netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.1:0"), true)
	n.ICMPEcho(netip.MustParseAddr("::1"), 7)

	var all, one bytes.Buffer
	n.Do(func() error {
		return errors.Join(
			inspect(t.Context(), &all, 0, 20),
			inspect(t.Context(), &one, 0, 1),
		)
	})
	t.Log(all.String())
	assert.Contains(t, all.String(), from.String())
	assert.Contains(t, all.String(), to.String())
	assert.Contains(t, all.String(), "ipv6-icmp")
	assert.NotContains(t, all.String(), "more")
	assert.Contains(t, one.String(), "and 1 more")
	assert.Equal(t, 2, n.Count())
}

func TestInspectEmpty(t *testing.T) {
	n := nstest.New(t)
	var out bytes.Buffer
	n.Do(func() error { return inspect(t.Context(), &out, 0, 20) })
	assert.Contains(t, out.String(), "0 flows")
}

// fullDisk fails to write.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, unix.ENOSPC }

// TestOutputFails asserts that a failure to write the output is an error.
func TestOutputFails(t *testing.T) {
	nstest.New(t).Do(func() error {
		assert.ErrorIs(t, demonstrate(t.Context(), fullDisk{}), unix.ENOSPC)
		assert.ErrorIs(t, inspect(t.Context(), fullDisk{}, time.Minute, 20), unix.ENOSPC)
		return nil
	})
}
