//go:build linux

package main

import (
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
)

// stopMark is the mark of the flow whose end stops the program.
const stopMark = 0x570b

// printEvents prints "listening" and then every event.
func printEvents(print func(any)) error {
	c := dial()
	if err := c.SetReadBuffer(1 << 20); err != nil {
		return err
	}
	events := make(chan conntrack.Event, 1024)
	errs, err := c.Listen(events, 1, append(netfilter.GroupsCT, netfilter.GroupsCTExp...))
	if err != nil {
		return err
	}
	print("listening")
	for {
		select {
		case err := <-errs:
			return err
		case ev := <-events:
			if ev.Type == conntrack.EventDestroy && ev.Flow.Mark == stopMark {
				return c.Close()
			}
			print(describeEvent(&ev))
		}
	}
}

func describeEvent(ev *conntrack.Event) object {
	o := object{"Event": fields(ev), "Type": ev.Type.String(), "Text": textsOf(*ev), "Pointer": textsOf(ev)}
	if ev.Flow != nil {
		o["Flow"] = describeFlow(ev.Flow)
	}
	if ev.Expect != nil {
		o["Expect"] = describeExpect(ev.Expect)
	}
	return o
}
