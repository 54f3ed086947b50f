//go:build linux

package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/internal/nstest"
)

func TestMain(m *testing.M) { nstest.MainOf(m, main) }

// TestWatch asserts that each line is an event that can be decoded.
func TestWatch(t *testing.T) {
	ns := nstest.New(t)
	p := ns.Start(nstest.Program())
	p.AwaitStderr("watching")
	from, to := ns.UDP(netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.1:0"), true)
	p.AwaitStdout(`"type":"new".*\n(.*\n)*.*"type":"update".*\n`)
	p.Interrupt()
	require.Zero(t, p.Exit(), p.Stderr())

	lines := strings.Split(strings.TrimSpace(p.Stdout()), "\n")
	require.Len(t, lines, 2)
	for i, want := range []conntrack.EventType{conntrack.EventNew, conntrack.EventUpdate} {
		var ev conntrack.Event
		require.NoError(t, json.Unmarshal([]byte(lines[i]), &ev))
		assert.Equal(t, want, ev.Type)
		assert.Equal(t, from, ev.Flow.Client())
		assert.Equal(t, to, ev.Flow.Server())
	}
}

// TestWatchWithoutPrivilege asserts that the error says which privilege is
// missing.
func TestWatchWithoutPrivilege(t *testing.T) {
	p := nstest.New(t).Start(nstest.Unprivileged(nstest.Program()))
	assert.Equal(t, 1, p.Exit())
	assert.Contains(t, p.Stderr(), "CAP_NET_ADMIN")
	assert.Empty(t, p.Stdout())
}

func TestWatchUsage(t *testing.T) {
	ns := nstest.New(t)
	for arg, code := range map[string]int{"-h": 0, "-unknown": 2, "argument": 2} {
		p := ns.Start(nstest.Program(arg))
		assert.Equal(t, code, p.Exit(), arg)
		assert.Contains(t, p.Stderr(), "one event a\nline", arg)
	}
}
