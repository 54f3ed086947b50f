package cttext_test

import (
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
)

var fuzzOptions = cttext.Options{
	Extended: true, ID: true, KTimestamp: true, Labels: textLabels, Now: printedAt, Location: time.UTC,
}

func addLines(f *testing.F) {
	for _, l := range conntrackLines {
		f.Add(l.line)
	}
	for _, l := range conntrackEvents {
		f.Add(l.line)
	}
	for _, l := range conntrackExpects {
		f.Add(l)
	}
}

// FuzzParse asserts that no input causes a panic, and that a parsed entry is
// the same after it was printed and parsed again.
func FuzzParse(f *testing.F) {
	addLines(f)
	f.Fuzz(func(t *testing.T, line string) {
		o := fuzzOptions
		if flow, err := o.ParseFlow(line); err == nil {
			again, err := o.ParseFlow(o.Flow(&flow))
			require.NoError(t, err)
			require.Equal(t, o.Flow(&flow), o.Flow(&again))
			saved, err := o.ParseFlow(cttext.Options{Save: true}.Flow(&flow))
			require.NoError(t, err)
			again, err = o.ParseFlow(cttext.Options{Save: true}.Flow(&saved))
			require.NoError(t, err)
			require.Equal(t, saved, again)
		}
		if ex, err := o.ParseExpect(line); err == nil {
			again, err := o.ParseExpect(o.Expect(&ex))
			require.NoError(t, err)
			require.Equal(t, ex, again)
		}
		if e, err := o.ParseEvent(line); err == nil {
			o := o
			o.Timestamp = !e.Time.IsZero()
			again, err := o.ParseEvent(o.Event(&e))
			require.NoError(t, err)
			require.Equal(t, o.Event(&e), o.Event(&again))
		}
	})
}

// FuzzCommand asserts that no input causes a panic, and that a parsed command
// can be matched.
func FuzzCommand(f *testing.F) {
	addLines(f)
	for _, line := range []string{
		"conntrack -D -s 2001:db8::/32 --mask-dst ffff:: -d ::1 -p udp --sport 0 -m 7/0xf -u !ASSURED,UNREPLIED -w 5 -i 3",
		"-U -p tcp -m 0/0xff --label-add zero --label-del last --state LISTEN -l 'a  b'", "-L -j [2001:db8::3]:80 -o id",
	} {
		f.Add(line)
	}
	flow, err := plain.ParseFlow(conntrackLines[1].line)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, line string) {
		c, err := fuzzOptions.ParseCommand(line)
		if err != nil {
			return
		}
		c.Match(&flow)
		c.Match(&conntrack.Flow{})
		if change, ok := c.Change(&flow); ok {
			require.True(t, c.Match(&flow))
			require.Zero(t, change.TupleOrig)
		}
	})
}

// FuzzMessage asserts that the event in any message can be printed, and that
// the line parses to an event that prints the same.
func FuzzMessage(f *testing.F) {
	f.Add(uint8(0), []byte("\x02\x00\x00\x00\x08\x00\x08\x00\x00\x00\x00\x05"))
	f.Fuzz(func(t *testing.T, typ uint8, data []byte) {
		var e conntrack.Event
		m := netlink.Message{Data: data}
		m.Header.Type = netlink.HeaderType(1+typ>>7)<<8 | netlink.HeaderType(typ&3)
		if e.Unmarshal(m) != nil {
			return
		}
		o := fuzzOptions
		if again, err := o.ParseEvent(o.Event(&e)); err == nil {
			require.Equal(t, o.Event(&e), o.Event(&again))
		}
		if e.Flow != nil {
			cttext.Options{Save: true}.Flow(e.Flow)
		}
	})
}
