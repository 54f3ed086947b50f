// Package conntrack reads and changes the Linux kernel's connection tracking
// table, through ctnetlink.
//
// A [Conn], made by [Dial], does four things:
//
//   - it shows the table: [Conn.Flows] and [Conn.Expects] as it streams in,
//     [Conn.Dump], [Conn.DumpFilter] and [Conn.DumpExpect] as a whole, [Conn.Get]
//     one flow of it;
//   - it changes it: [Conn.Create], [Conn.CreateOrUpdate], [Conn.Update],
//     [Conn.Delete]; many flows at a time with [Conn.CreateBatch],
//     [Conn.UpdateBatch], [Conn.DeleteBatch], [Conn.DeleteFunc],
//     [Conn.UpdateFunc], [Conn.Flush], [Conn.FlushFilter]; expectations with
//     [Conn.CreateExpect], [Conn.UpdateExpect], [Conn.DeleteExpect],
//     [Conn.FlushExpect], [Conn.FlushExpectHelper];
//   - it watches it: [Conn.Events], [Conn.Listen];
//   - it counts: [Conn.Stats], [Conn.StatsExpect], [Conn.StatsGlobal].
//
// The table holds a [Flow] for each connection that the kernel tracks, and an
// [Expect] for each connection that one of its helpers waits for, such as the
// data connection of FTP. Both are JSON.
//
// Package cttext prints and reads the lines of conntrack(8), and package cttimeout
// is about timeouts by policy.
//
// # Privileges
//
// The kernel serves no request, and sends no event, to a process without
// CAP_NET_ADMIN in the user namespace that owns the network namespace. Errors
// for lack of it satisfy errors.Is(err, fs.ErrPermission).
//
// # Errors
//
// What the kernel refuses comes back as an [*OpError] that wraps the errno:
// errors.Is(err, unix.ENOENT) or errors.Is(err, fs.ErrNotExist) for a flow that
// is not there, errors.Is(err, unix.EEXIST) or errors.Is(err, fs.ErrExist) for one
// that is there already. It wraps a [*netlink.OpError] with the kernel's own
// words, where there are some. After [Conn.Close] errors satisfy
// errors.Is(err, fs.ErrClosed).
//
// # Byte order
//
// Ports, marks and all other integers are in the machine's byte order in every
// field of this package.
//
// [*netlink.OpError]: https://pkg.go.dev/github.com/mdlayher/netlink#OpError
package conntrack
