//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"reflect"
	"time"
)

// fields returns all exported fields of v, at any depth, in a form that JSON
// does not change. It does not call methods of v that print or encode.
func fields(v any) any {
	return walk(reflect.ValueOf(v))
}

func walk(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case netip.Addr:
		return x.String()
	case time.Time:
		return x.Format(time.RFC3339Nano)
	case []byte:
		if x == nil {
			return nil
		}
		return fmt.Sprintf("%#x", x)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return walk(v.Elem())
	case reflect.Struct:
		o := object{}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				o[f.Name] = walk(v.Field(i))
			}
		}
		return o
	case reflect.Bool:
		return v.Bool()
	case reflect.String:
		return v.String()
	default:
		return fmt.Sprintf("%d", v.Interface())
	}
}
