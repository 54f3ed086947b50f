// Package schema tests the JSON Schemas in docs against the library's output.
package schema
