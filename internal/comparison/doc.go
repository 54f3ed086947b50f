// Package comparison has tests alone: they hold the packages conntrack and cttext
// against conntrack(8), both ways, and run conntrack-tools' own test suite.
package comparison
