// Package conntracktest is a connection tracking table in memory, for tests of
// programs that use package conntrack: on any system, without privileges.
//
// A [Kernel] is the table. [Kernel.Dial] returns Conns that speak to it, with all
// their methods: requests, batches, dumps, filters, events, expectations, statistics.
// They are Conns as any other, but that the Kernel answers in place of Linux, and as
// Linux 6.18 would. Package cttimeout is not supported.
//
// What packets and time do to flows, a test does: with [Kernel.Add], [Kernel.Change],
// [Kernel.Count], [Kernel.Remove] and [Kernel.Advance]. What can go wrong, it makes
// go wrong: with [Kernel.Overrun], [Kernel.Fail], [Kernel.Hold], [Kernel.Interrupt],
// [Kernel.Miss], [Kernel.OnDump] and [Options].
//
// The same calls lead to the same table and the same events in the same order. Where
// Linux leaves it to chance, a Kernel is simpler:
//
//   - Dumps, flushes and their events are in the order in which entries were added.
//   - NAT takes the first address and port of a range that it can.
//   - Packets are not looked at: nothing changes a TCP state, and nothing refreshes a
//     timeout, but the test.
//   - A full table drops no flow to make room.
//   - Flow.ID of a flow that is added again is that of the one before if nothing else
//     was added or removed in between.
//   - There is one CPU, and most statistics are 0.
//   - Errors come without the kernel's text.
//   - There is one network namespace: no event has an NSID.
package conntracktest
