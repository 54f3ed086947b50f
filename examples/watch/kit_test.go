package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/conntracktest"
	"github.com/ti-mo/conntrack/netfilter"
)

// TestEvents needs no kernel.
func TestEvents(t *testing.T) {
	k := conntracktest.NewKernel(nil)
	conn, err := k.Dial()
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	lines, w := io.Pipe()
	watching, done := make(chan struct{}, 1), make(chan error, 1)
	log.SetOutput(writer(func() { watching <- struct{}{} }))
	go func() { done <- watch(ctx, conn, w, netfilter.GroupsCT) }()
	<-watching

	f := conntrack.Flow{TupleOrig: conntrack.NewTuple(conntrack.ProtocolUDP,
		netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("192.0.2.1:53"))}
	require.NoError(t, k.Add(f))
	require.NoError(t, k.Remove(f))
	events := json.NewDecoder(lines)
	for _, want := range []conntrack.EventType{conntrack.EventNew, conntrack.EventDestroy} {
		var ev conntrack.Event
		require.NoError(t, events.Decode(&ev))
		require.Equal(t, want, ev.Type)
		require.Equal(t, f.TupleOrig, ev.Flow.TupleOrig)
	}
	cancel()
	require.NoError(t, <-done)
}

// A writer is called for each write.
type writer func()

func (w writer) Write(b []byte) (int, error) { w(); return len(b), nil }
