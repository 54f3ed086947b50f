// Package netfilter names the event groups and protocol families of the kernel's
// packet filter, as the functions of package conntrack take them.
//
// On Linux its types, constants and variables are those of
// github.com/ti-mo/netfilter, so a program may import either. On other systems,
// where that package does not compile, they are defined here with the same names
// and values.
package netfilter
