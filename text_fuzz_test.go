//go:build linux

package conntrack

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

// FuzzText asserts that whatever is read is the same when it was printed and read
// again, and nothing panics.
func FuzzText(f *testing.F) {
	for _, l := range conntrackLines {
		f.Add(l.line)
	}
	for _, l := range conntrackEvents {
		f.Add(l.line)
	}
	for _, l := range conntrackExpects {
		f.Add(l)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		f.Add(anyStruct[Flow](r).Text(lossless))
		f.Add(anyStruct[Expect](r).Text(lossless))
	}
	o := TextOptions{Labels: textLabels, Now: printedAt, Location: time.UTC}
	f.Fuzz(func(t *testing.T, line string) {
		all := o
		all.Lossless = true
		if flow, err := o.ParseFlow(line); err == nil {
			fixTimes(&flow)
			requireTextTells(t, flow, flow.Text(all), o.ParseFlow)
		}
		if ex, err := o.ParseExpect(line); err == nil {
			requireTextTells(t, ex, ex.Text(all), o.ParseExpect)
		}
		if e, err := o.ParseEvent(line); err == nil {
			if e.Flow != nil {
				fixTimes(e.Flow)
			}
			requireTextTells(t, e, e.Text(all), o.ParseEvent)
		}
	})
}

// fixTimes gives f the times that it has in the machine's time zone, in which the
// kernel's are.
func fixTimes(f *Flow) {
	for _, at := range []*time.Time{&f.Timestamp.Start, &f.Timestamp.Stop} {
		if !at.IsZero() {
			*at = time.Unix(at.Unix(), int64(at.Nanosecond()))
		}
	}
}

// FuzzTextOfMessage asserts that what a message is decoded to is the same when it
// was text.
func FuzzTextOfMessage(f *testing.F) {
	for _, file := range goldenFiles(f) {
		r := readRecord(f, file)
		f.Add(r.message(f).Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 4 {
			return
		}
		var flow Flow
		if flow.unmarshal(bytes.Clone(data[4:]), nil) == nil {
			requireFlowTextTells(t, flow)
		}
		var ex Expect
		if ex.unmarshal(bytes.Clone(data[4:]), nil) == nil {
			requireExpectTextTells(t, ex)
		}
	})
}
