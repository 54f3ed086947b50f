package schema

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
)

// schemas validates the JSON of each type. The published schemas allow unknown
// properties, which readers must ignore; the tests do not.
type schemas struct {
	of    map[string]*jsonschema.Schema // by the name of the Go type
	names map[string]bool               // of all properties
}

func compile(t *testing.T) *schemas {
	t.Helper()
	s := &schemas{of: make(map[string]*jsonschema.Schema), names: make(map[string]bool)}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	files := map[string]string{"Flow": "flow.schema.json", "Expect": "expect.schema.json", "Event": "event.schema.json"}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("../../docs", file))
		require.NoError(t, err)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		require.NoError(t, err)
		s.close(doc)
		require.NoError(t, compiler.AddResource(file, doc))
	}
	for typ, file := range files {
		var err error
		s.of[typ], err = compiler.Compile(file)
		require.NoError(t, err)
	}
	return s
}

// close forbids all properties that a schema does not define.
func (s *schemas) close(schema any) {
	switch v := schema.(type) {
	case map[string]any:
		if properties, ok := v["properties"].(map[string]any); ok {
			v["additionalProperties"] = false
			for name := range properties {
				s.names[name] = true
			}
		}
		for _, inner := range v {
			s.close(inner)
		}
	case []any:
		for _, inner := range v {
			s.close(inner)
		}
	}
}

func (s *schemas) require(t *testing.T, typ string, text []byte) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	require.NoError(t, s.of[typ].Validate(value), "%s", text)
}

func (s *schemas) requireValue(t *testing.T, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	s.require(t, reflect.TypeOf(v).Name(), text)
}

// TestGolden asserts that the schemas accept the JSON of messages from kernels.
// Dumps among them are treated as events.
func TestGolden(t *testing.T) {
	s := compile(t)
	files, err := filepath.Glob("../../testdata/*/*.json")
	require.NoError(t, err)
	seen := make(map[conntrack.EventType]int)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var golden struct{ Message, Type string }
		require.NoError(t, json.Unmarshal(text, &golden))
		if !slices.Contains([]string{"*conntrack.Flow", "*conntrack.Expect", "*conntrack.Event"}, golden.Type) {
			continue
		}
		message, err := hex.DecodeString(golden.Message)
		require.NoError(t, err)
		var parsed netlink.Message
		require.NoError(t, parsed.UnmarshalBinary(message))
		var ev conntrack.Event
		require.NoError(t, ev.Unmarshal(parsed), file)
		s.requireValue(t, ev)
		seen[ev.Type]++
	}
	for typ := conntrack.EventNew; typ <= conntrack.EventExpDestroy; typ++ {
		assert.NotZero(t, seen[typ], typ)
	}
}

// TestAnyValue asserts that the schemas accept the JSON of random values, and
// that these have every property of the schemas.
func TestAnyValue(t *testing.T) {
	s := compile(t)
	r := rand.New(rand.NewPCG(1, 2))
	written := make(map[string]bool)
	for range 2000 {
		for _, v := range []any{new(conntrack.Flow), new(conntrack.Expect), new(conntrack.Event)} {
			value := reflect.ValueOf(v).Elem()
			fill(value, r)
			s.requireValue(t, value.Interface())
			addNames(t, written, value.Interface())
		}
	}
	written["nsid"] = true // not exported
	assert.Empty(t, slices.DeleteFunc(slices.Sorted(maps.Keys(s.names)), func(name string) bool { return written[name] }))
}

// fill sets some fields of v to random values.
func fill(v reflect.Value, r *rand.Rand) {
	if r.IntN(3) == 0 || !v.CanSet() {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *netip.Addr:
		*p = [...]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")}[r.IntN(2)]
		return
	case *time.Time:
		*p = time.Unix(0, int64(r.Uint64()>>1))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), r)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r)
	case reflect.Slice:
		v.SetBytes([]byte{byte(r.Uint32()), 0})
	case reflect.String:
		v.SetString("<\"\\>")
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.SetUint(r.Uint64() >> (64 - v.Type().Bits()) >> r.IntN(v.Type().Bits()))
	}
}

// addNames adds the names of all properties in the JSON of v.
func addNames(t *testing.T, names map[string]bool, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	var value any
	require.NoError(t, json.Unmarshal(text, &value))
	var add func(any)
	add = func(value any) {
		object, _ := value.(map[string]any)
		for name, inner := range object {
			names[name] = true
			add(inner)
		}
	}
	add(value)
}

// TestRefused asserts that the schemas refuse invalid values.
func TestRefused(t *testing.T) {
	s := compile(t)
	for _, tt := range []struct{ name, typ, text string }{
		{"name of a Go field", "Flow", `{"Mark":1}`},
		{"port out of range", "Flow", `{"orig":{"sport":65536}}`},
		{"negative", "Flow", `{"mark":-1}`},
		{"protocol out of range", "Flow", `{"orig":{"protocol":256}}`},
		{"flags that are no list", "Flow", `{"status":"ASSURED"}`},
		{"time of day", "Flow", `{"start":"12:00"}`},
		{"local time", "Flow", `{"start":"2026-11-25T12:00:00+01:00"}`},
		{"half of a counter", "Flow", `{"orig":{"packets":1}}`},
		{"TCP without state", "Flow", `{"tcp":{}}`},
		{"odd digits", "Flow", `{"labels":"abc"}`},
		{"counters of a tuple", "Expect", `{"tuple":{"packets":1,"bytes":40}}`},
		{"no type", "Event", `{}`},
		{"unknown type", "Event", `{"type":"old"}`},
		{"event in an event", "Event", `{"type":"new","flow":{"type":"new"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(tt.text)))
			require.NoError(t, err)
			require.Error(t, s.of[tt.typ].Validate(value))
		})
	}
}
