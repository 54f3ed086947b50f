//go:build linux

package netfilter_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	upstream "github.com/ti-mo/netfilter"

	"github.com/ti-mo/conntrack/netfilter"
)

// On Linux, the types are those of github.com/ti-mo/netfilter, so these
// assignments compile.
var (
	_ upstream.NetlinkGroup   = netfilter.NetlinkGroup(0)
	_ upstream.ProtoFamily    = netfilter.ProtoFamily(0)
	_ []upstream.NetlinkGroup = netfilter.GroupsCT
	_ []upstream.NetlinkGroup = netfilter.GroupsCTExp
)

// linux has all values of names_linux.go.
var linux = map[string]any{
	"GroupNone":         netfilter.GroupNone,
	"GroupCTNew":        netfilter.GroupCTNew,
	"GroupCTUpdate":     netfilter.GroupCTUpdate,
	"GroupCTDestroy":    netfilter.GroupCTDestroy,
	"GroupCTExpNew":     netfilter.GroupCTExpNew,
	"GroupCTExpUpdate":  netfilter.GroupCTExpUpdate,
	"GroupCTExpDestroy": netfilter.GroupCTExpDestroy,
	"GroupNFTables":     netfilter.GroupNFTables,
	"GroupAcctQuota":    netfilter.GroupAcctQuota,
	"GroupNFTrace":      netfilter.GroupNFTrace,
	"GroupsCT":          netfilter.GroupsCT,
	"GroupsCTExp":       netfilter.GroupsCTExp,
	"ProtoUnspec":       netfilter.ProtoUnspec,
	"ProtoInet":         netfilter.ProtoInet,
	"ProtoIPv4":         netfilter.ProtoIPv4,
	"ProtoARP":          netfilter.ProtoARP,
	"ProtoNetDev":       netfilter.ProtoNetDev,
	"ProtoBridge":       netfilter.ProtoBridge,
	"ProtoIPv6":         netfilter.ProtoIPv6,
	"ProtoDECNet":       netfilter.ProtoDECNet,
}

// TestNames asserts that both files declare the same names.
func TestNames(t *testing.T) {
	t.Parallel()
	linuxValues, linuxTypes := declared(t, "names_linux.go")
	otherValues, otherTypes := declared(t, "names_other.go")
	assert.ElementsMatch(t, linuxValues, otherValues)
	assert.ElementsMatch(t, linuxTypes, otherTypes)
	for _, name := range linuxValues {
		assert.Contains(t, linux, name)
	}
	assert.Len(t, linuxValues, len(linux))
}

// declared returns the exported constants, variables and types of a file.
func declared(t *testing.T, file string) (values, types []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	for _, d := range f.Decls {
		d, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					if name.IsExported() {
						values = append(values, name.Name)
					}
				}
			case *ast.TypeSpec:
				types = append(types, spec.Name.Name)
			}
		}
	}
	return values, types
}

// TestOther asserts that names_other.go has the values and texts of
// github.com/ti-mo/netfilter. It compiles that file into a program for this
// system.
func TestOther(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the go command")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command, as in a virtual machine")
	}
	names, _ := declared(t, "names_other.go")
	source, err := os.ReadFile("names_other.go")
	require.NoError(t, err)

	dir := t.TempDir()
	write := func(file, text string) string {
		path := filepath.Join(dir, file)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	other := write("names.go", strings.NewReplacer("//go:build !linux\n", "", "package netfilter", "package main").Replace(string(source)))
	var printed strings.Builder
	for _, name := range names {
		fmt.Fprintf(&printed, "\tvalues[%q] = fmt.Sprintf(`%%T %%d`, %[1]s, %[1]s)\n", name)
	}
	main := write("main.go", `package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	values := map[string]string{}
`+printed.String()+`
	for f := range 256 {
		values[fmt.Sprint(f)] = fmt.Sprint(ProtoFamily(f))
	}
	json.NewEncoder(os.Stdout).Encode(values)
}
`)
	out, err := exec.Command("go", "run", other, main).Output()
	require.NoError(t, err)
	got := map[string]string{}
	require.NoError(t, json.Unmarshal(out, &got))

	want := map[string]string{}
	for name, value := range linux {
		want[name] = strings.ReplaceAll(fmt.Sprintf("%T %d", value, value), "netfilter.", "main.")
	}
	for f := range 256 {
		want[fmt.Sprint(f)] = fmt.Sprint(upstream.ProtoFamily(f))
	}
	assert.Equal(t, want, got)
}
