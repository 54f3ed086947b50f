// Programs that use the library as they would use github.com/ti-mo/conntrack
// v0.5.0, with the one line that makes them use it. Built with -modfile=v050.mod,
// the same programs use v0.5.0 itself.
module github.com/ti-mo/conntrack/internal/compat

go 1.25.0

replace github.com/ti-mo/conntrack => ../../

require (
	github.com/mdlayher/netlink v1.11.2
	github.com/ti-mo/conntrack v0.5.0
	github.com/ti-mo/netfilter v0.5.3
	golang.org/x/sys v0.47.0
)

require (
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/google/nftables v0.3.0 // indirect
	github.com/mdlayher/socket v0.6.0 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	golang.org/x/net v0.58.0 // indirect
	golang.org/x/sync v0.20.0 // indirect
)
