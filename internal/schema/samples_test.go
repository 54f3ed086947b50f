package schema

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
)

// TestSamples asserts that the schemas accept jsonSamples. It parses them from
// json_test.go, because another module cannot import them.
func TestSamples(t *testing.T) {
	s := compile(t)
	file, err := parser.ParseFile(token.NewFileSet(), "../../json_test.go", nil, 0)
	require.NoError(t, err)
	spec, ok := file.Scope.Lookup("jsonSamples").Decl.(*ast.ValueSpec)
	require.True(t, ok)
	samples := spec.Values[0].(*ast.CompositeLit).Elts
	require.NotEmpty(t, samples)
	for _, sample := range samples {
		fields := sample.(*ast.CompositeLit).Elts // name, value, text
		t.Run(constant(t, fields[0]), func(t *testing.T) {
			typ := fields[1].(*ast.CompositeLit).Type.(*ast.Ident).Name
			s.require(t, typ, []byte(constant(t, fields[2])))
		})
	}
}

// constant returns the value of string literals joined by +.
func constant(t *testing.T, e ast.Expr) string {
	t.Helper()
	if sum, ok := e.(*ast.BinaryExpr); ok {
		return constant(t, sum.X) + constant(t, sum.Y)
	}
	text, err := strconv.Unquote(e.(*ast.BasicLit).Value)
	require.NoError(t, err)
	return text
}

// TestDocument asserts that the schemas accept the example in docs/json.md, and
// that it stays the same when it is decoded and encoded again.
func TestDocument(t *testing.T) {
	s := compile(t)
	text, err := os.ReadFile("../../docs/json.md")
	require.NoError(t, err)
	example := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(text)
	require.NotNil(t, example)
	s.require(t, "Event", example[1])
	var ev conntrack.Event
	require.NoError(t, json.Unmarshal(example[1], &ev))
	again, err := json.Marshal(ev)
	require.NoError(t, err)
	require.JSONEq(t, string(example[1]), string(again))
}
