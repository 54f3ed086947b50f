// Package nfnl speaks nfnetlink, the netlink protocol of Linux's packet filter.
// It knows the socket, the message header and the attributes. Packages above
// it, such as conntrack, know what the messages mean.
//
// An [Encoder] appends messages to a buffer. A [Conn] sends them and passes on
// the replies. A [Decoder] reads the attributes of a reply in place. None of
// the three allocates once its buffers have grown.
//
// The protocol is defined by linux/netfilter/nfnetlink.h and linux/netlink.h.
package nfnl
