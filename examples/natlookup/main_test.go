//go:build linux

package main

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestMain(m *testing.M) { nstest.MainOf(m, main) }

// TestNATLookup asserts that clients are told the address they dialed, whether
// it was translated, not translated or not tracked.
func TestNATLookup(t *testing.T) {
	server := netip.MustParseAddrPort("127.0.0.1:8080")
	service := netip.MustParseAddrPort("127.0.0.9:80")
	for _, tt := range []struct {
		name   string
		dialed netip.AddrPort
		opts   []nstest.Option
	}{
		{"translated", service, nil},
		{"not translated", server, nil},
		{"not tracked", server, []nstest.Option{nstest.NoTracking()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t, tt.opts...)
			if tt.dialed != server {
				ns.DNAT(unix.IPPROTO_TCP, tt.dialed, server)
			}
			p := ns.Start(nstest.Program("-listen", server.String()))
			p.AwaitStderr("listening")

			var client net.Conn
			ns.Do(func() (err error) {
				client, err = net.Dial("tcp", tt.dialed.String())
				return err
			})
			defer client.Close()
			told, err := io.ReadAll(client)
			require.NoError(t, err)
			assert.Equal(t, "you dialed "+tt.dialed.String()+"\n", string(told))
			p.AwaitStdout(client.LocalAddr().String() + " dialed " + tt.dialed.String() + "\n")

			p.Interrupt()
			require.Zero(t, p.Exit(), p.Stderr())
		})
	}
}

// TestNATLookupWithoutPrivilege asserts that the error says which privilege is
// missing.
func TestNATLookupWithoutPrivilege(t *testing.T) {
	p := nstest.New(t).Start(nstest.Unprivileged(nstest.Program()))
	assert.Equal(t, 1, p.Exit())
	assert.Contains(t, p.Stderr(), "CAP_NET_ADMIN")
}

func TestNATLookupUsage(t *testing.T) {
	ns := nstest.New(t)
	for arg, code := range map[string]int{"-h": 0, "-unknown": 2, "argument": 2} {
		p := ns.Start(nstest.Program(arg))
		assert.Equal(t, code, p.Exit(), arg)
		assert.Contains(t, p.Stderr(), "before it was translated", arg)
	}
}
