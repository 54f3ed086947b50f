// Package comparison only has tests. They compare the packages conntrack and
// cttext with conntrack(8), in both directions, and run the test suite of
// conntrack-tools.
package comparison
