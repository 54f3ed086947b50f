// Package netfilter names the event groups and protocol families of the
// kernel's packet filter. The functions of package conntrack take them as
// arguments.
//
// On Linux, its types are aliases of those of github.com/ti-mo/netfilter, and
// its constants and variables are the same, so a program may import either
// package. That package does not compile on other systems, where this one
// defines the same names and values itself.
package netfilter
