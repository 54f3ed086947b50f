// The requirements of the programs here with github.com/ti-mo/conntrack v0.5.0
// itself, and the netlink library that it asks for.
module github.com/ti-mo/conntrack/internal/compat

go 1.25.0

require (
	github.com/mdlayher/netlink v1.7.2
	github.com/ti-mo/conntrack v0.5.0
	github.com/ti-mo/netfilter v0.5.3
	golang.org/x/sys v0.33.0
)

require (
	github.com/josharian/native v1.1.0 // indirect
	github.com/mdlayher/socket v0.5.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	golang.org/x/net v0.39.0 // indirect
	golang.org/x/sync v0.14.0 // indirect
)
