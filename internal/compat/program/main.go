//go:build linux

// Program prints the results of using the library as JSON. It is written for
// github.com/ti-mo/conntrack v0.5.0. The tests of package compat build it with
// that version and with this library, and compare the output:
//
//	program texts     how values print with String, fmt and slog
//	program table     the table, the expectations and the statistics
//	program events    the events, one per line, until the flow marked stopMark ends
//	program habits    the outcome of calls that fail or nearly fail
//	program requests  the effect of a sequence of requests on an empty table
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/ti-mo/conntrack"
)

// An object is a JSON object.
type object map[string]any

var commands = map[string]func(print func(any)) error{
	"texts":    printTexts,
	"table":    printTable,
	"events":   printEvents,
	"habits":   printHabits,
	"requests": printRequests,
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 || commands[os.Args[1]] == nil {
		log.Fatal("usage: program texts|table|events|habits|requests")
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	err := commands[os.Args[1]](func(v any) {
		if err := out.Encode(v); err != nil {
			log.Fatal(err)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
}

// dial opens a Conn in the program's own network namespace.
func dial() *conntrack.Conn {
	c, err := conntrack.Dial(nil)
	if err != nil {
		log.Fatal(err)
	}
	return c
}
