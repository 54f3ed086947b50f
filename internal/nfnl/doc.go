// Package nfnl speaks nfnetlink, the part of netlink through which Linux
// shows its packet filter to user space: the socket, the message header, and
// the attributes. What the messages mean is left to packages above it, such as
// conntrack.
//
// An [Encoder] appends messages to one buffer, a [Conn] sends them and passes
// the replies on out of another, and a [Decoder] reads their attributes in
// place. None of the three allocates once its buffers have grown.
//
// The kernel's side is described in linux/netfilter/nfnetlink.h and
// linux/netlink.h.
package nfnl
