// Package cttext prints and parses the lines of the command conntrack(8).
//
// [Options] prints flows, expectations and events as conntrack -L and conntrack
// -E do, with most values of their option -o. Its Append methods add a line to
// a buffer, for use in streams.
//
// There are two kinds of input, because they use the same words with different
// meanings:
//
//   - [Options.ParseFlow], [Options.ParseExpect] and [Options.ParseEvent] read
//     printed lines: those of conntrack(8), including -o save, those of this
//     package, and those of /proc/net/nf_conntrack.
//   - [Options.ParseCommand] reads commands, which add, change, delete or find
//     flows. It returns a [Command], which says what to do with the methods of
//     a [conntrack.Conn].
//
// Lines do not show all of a flow. For a complete format, use JSON: see
// [conntrack.Flow.MarshalJSON].
//
// The format is that of conntrack-tools 1.4.9. Version 1.4.7 prints the same.
package cttext
