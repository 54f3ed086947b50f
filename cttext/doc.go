// Package cttext prints and reads the lines of conntrack(8).
//
// [Options] print flows, expectations and events as conntrack -L and conntrack -E
// do, and as they do with most of their option -o. The Append methods are for
// streams: they add a line to a buffer.
//
// There are two grammars, since the same words mean different things in them.
// [Options.ParseFlow], [Options.ParseExpect] and [Options.ParseEvent] read what was
// printed: by conntrack(8), with -o save too, by this package, or by the kernel in
// /proc/net/nf_conntrack. [Options.ParseCommand] reads what one types to add,
// change, delete or find flows; a [Command] tells what that means for the
// methods of a conntrack.Conn.
//
// Lines do not show all of a flow. JSON does: see conntrack.Flow.MarshalJSON.
//
// The format is that of conntrack-tools 1.4.9; version 1.4.7 prints the same.
package cttext
