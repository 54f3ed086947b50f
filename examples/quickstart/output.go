//go:build linux

package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ti-mo/conntrack"
)

// output prints to a writer and keeps the first error in err.
type output struct {
	w   io.Writer
	err error

	headings int
	width    int // of addresses with ports, in events
}

// Write implements io.Writer, so that a tabwriter can print here too.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

func (o *output) printf(format string, args ...any) {
	fmt.Fprintf(o, format, args...)
}

// heading starts a numbered section with a title and an explanation.
func (o *output) heading(title string, text ...string) {
	o.headings++
	o.printf("\n%d. %s\n", o.headings, title)
	for _, line := range text {
		o.printf("   %s\n", line)
	}
	o.printf("\n")
}

// table prints rows in aligned columns. The first row has the titles of the
// columns.
func (o *output) table(rows [][]string) {
	w := tabwriter.NewWriter(o, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintf(w, "   %s\n", strings.Join(row, "\t"))
	}
	w.Flush() // o.err keeps any error
}

// flows prints flows as a table.
func (o *output) flows(flows []conntrack.Flow) {
	rows := [][]string{{"PROTO", "SOURCE", "DESTINATION", "STATE", "SENT", "RECEIVED", "MARK", "TIMEOUT", "AGE"}}
	for _, f := range flows {
		rows = append(rows, []string{
			protocol(f.TupleOrig), source(f.TupleOrig), destination(f.TupleOrig), state(&f),
			amount(f.CountersOrig), amount(f.CountersReply), mark(f.Mark), seconds(f.Timeout), age(f.Timestamp),
		})
	}
	o.table(rows)
}

// stats prints the counters of each CPU as a table.
func (o *output) stats(stats []conntrack.Stats) {
	rows := [][]string{{"CPU", "FOUND", "INVALID", "INSERT FAILED", "DROP", "EARLY DROP", "ERROR"}}
	for _, s := range stats {
		rows = append(rows, []string{
			fmt.Sprint(s.CPUID), fmt.Sprint(s.Found), fmt.Sprint(s.Invalid), fmt.Sprint(s.InsertFailed),
			fmt.Sprint(s.Drop), fmt.Sprint(s.EarlyDrop), fmt.Sprint(s.Error),
		})
	}
	o.table(rows)
}

// eventFormat aligns events that are printed one at a time.
const eventFormat = "   %-7s  %-5s  %-*s  %-*s  %-11s  %-4s  %s\n"

// events prints the column titles for events.
func (o *output) events() {
	o.printf(eventFormat, "EVENT", "PROTO", o.width, "SOURCE", o.width, "DESTINATION", "STATE", "MARK", "STATUS")
}

// event prints one event.
func (o *output) event(ev conntrack.Event) {
	if ev.Flow == nil {
		o.printf("   %v\n", ev)
		return
	}
	f := ev.Flow
	o.printf(eventFormat, kinds[ev.Type], protocol(f.TupleOrig), o.width, source(f.TupleOrig),
		o.width, destination(f.TupleOrig), state(f), mark(f.Mark), f.Status)
}

var kinds = map[conntrack.EventType]string{
	conntrack.EventNew:     "new",
	conntrack.EventUpdate:  "update",
	conntrack.EventDestroy: "destroy",
}

func protocol(t conntrack.Tuple) string { return conntrack.Protocol(t.Proto.Protocol).String() }

func source(t conntrack.Tuple) string {
	return endpoint(t, t.IP.SourceAddress, t.Proto.SourcePort)
}

func destination(t conntrack.Tuple) string {
	return endpoint(t, t.IP.DestinationAddress, t.Proto.DestinationPort)
}

func endpoint(t conntrack.Tuple, addr netip.Addr, port uint16) string {
	if t.Proto.ICMPv4 || t.Proto.ICMPv6 || port == 0 {
		return addr.String()
	}
	return netip.AddrPortFrom(addr, port).String()
}

func state(f *conntrack.Flow) string {
	tcp := f.ProtoInfo.TCP
	if tcp == nil {
		return "-"
	}
	return conntrack.TCPState(tcp.State).String()
}

// amount returns the text of a counter, or "-" if no packet was counted.
func amount(c conntrack.Counter) string {
	if c.Packets == 0 {
		return "-"
	}
	return fmt.Sprintf("%d B in %d", c.Bytes, c.Packets)
}

func mark(m uint32) string {
	return fmt.Sprintf("%#x", m)
}

func seconds(s uint32) string {
	return (time.Duration(s) * time.Second).String()
}

func age(t conntrack.Timestamp) string {
	if t.Start.IsZero() {
		return "-"
	}
	return time.Since(t.Start).Round(time.Millisecond).String()
}
