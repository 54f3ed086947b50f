// Package schema tests the JSON Schemas in docs against what the library writes.
package schema
