package schema

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSamples validates the texts of jsonSamples in json_test.go, which another
// module cannot import.
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

// constant returns the value of string literals with + between them.
func constant(t *testing.T, e ast.Expr) string {
	t.Helper()
	if sum, ok := e.(*ast.BinaryExpr); ok {
		return constant(t, sum.X) + constant(t, sum.Y)
	}
	text, err := strconv.Unquote(e.(*ast.BasicLit).Value)
	require.NoError(t, err)
	return text
}
