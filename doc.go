// Package conntrack reads, changes and watches the Linux kernel's connection
// tracking table. It speaks ctnetlink, the kernel's own interface to it, and
// needs neither cgo nor the conntrack command.
//
// The table holds a [Flow] for each connection that the kernel tracks: its
// addresses and ports in both directions, its state, timeout, counters, mark
// and more. A second table holds an [Expect] for each connection that a helper
// of the kernel waits for, such as the data connection of FTP. A [Conn], opened
// by [Dial], works on both, in one network namespace.
//
// # Reading
//
// [Conn.Flows] ranges over the flows that a [Filter] selects, in constant memory:
//
//	c, err := conntrack.Dial(nil)
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	for f, err := range c.Flows(ctx, conntrack.Filter{}, nil) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(f)
//	}
//
// [Conn.Dump] and [Conn.DumpFilter] return the flows as a slice. [Conn.Get]
// returns one flow, [Conn.GetBatch] many. For expectations, use [Conn.Expects],
// [Conn.ExpectsOf], [Conn.DumpExpect] and [Conn.GetExpect].
//
// # Changing
//
// [Conn.Create], [Conn.CreateOrUpdate], [Conn.Update] and [Conn.Delete] change
// one flow. [Conn.CreateBatch], [Conn.CreateOrUpdateBatch], [Conn.UpdateBatch]
// and [Conn.DeleteBatch] change many with few system calls. [Conn.DeleteFunc]
// and [Conn.UpdateFunc] change the flows that a [Filter] and a function select,
// [Conn.FlushFilter] removes those that a [Filter] selects, and [Conn.Flush]
// removes all.
//
// For expectations, use [Conn.CreateExpect], [Conn.UpdateExpect],
// [Conn.DeleteExpect], [Conn.FlushExpect] and [Conn.FlushExpectHelper].
//
// # Watching
//
// [Conn.Events] ranges over the changes of the table as they happen, and
// [Conn.Listen] sends them to a channel. An [Event] carries only a part of its
// flow. The kernel drops events if a program reads them too slowly, and
// [ErrOverrun] says so.
//
// # Counting
//
// [Conn.StatsGlobal] returns how many flows the network namespace has, and how many
// it may have. [Conn.Stats] and [Conn.StatsExpect] return the kernel's own counters
// for each CPU. [Conn.Settings] says what the namespace counts, tells and tracks, so
// that what is missing has a cause.
//
// # Testing
//
// Package conntracktest is a table in memory that a Conn works on, for tests of
// programs on any system, without privileges.
//
// # Privileges
//
// Every request, and every event, needs CAP_NET_ADMIN in the user namespace that
// owns the network namespace. To open another network namespace, [Dial] needs
// CAP_SYS_ADMIN.
//
// # Errors
//
// A failed operation returns an [*OpError]. A batch returns a [*BatchError], which
// lists the flows that failed. errors.Is tells the reason:
//
//   - unix.ENOENT, fs.ErrNotExist: the flow does not exist.
//   - unix.EEXIST, fs.ErrExist: the flow exists already.
//   - unix.EPERM, fs.ErrPermission: usually, the process lacks CAP_NET_ADMIN.
//   - unix.EBADF, fs.ErrClosed: [Conn.Close] was called.
//   - Any other errno of the kernel, or an error of this package such as
//     [ErrNeedTimeout].
//
// A refusal of the kernel also wraps a [*netlink.OpError], which has the kernel's
// own words if it gave any.
//
// # Byte order
//
// Ports, marks and all other integers are in the machine's byte order in every
// field of this package.
//
// # Other packages
//
// Package [github.com/ti-mo/conntrack/netfilter] names the groups of events and
// the address families. Package [github.com/ti-mo/conntrack/cttext] prints and
// reads the lines of conntrack(8), and package
// [github.com/ti-mo/conntrack/cttimeout] manages timeout policies. The examples
// directory has small programs to copy.
//
// [*netlink.OpError]: https://pkg.go.dev/github.com/mdlayher/netlink#OpError
package conntrack
