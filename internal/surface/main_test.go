package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{
		"a.go": `package p

type (
	T struct{ Field int }
	G[K any] struct{}
	hidden struct{}
)

const (
	A, b = iota, iota
	C, _
)

var D, e int

func F() { const Inner = 1 }
func (T) M()        {}
func (*G[K]) M()    {}
func (hidden) M()   {}
func (T) unseen()   {}
`,
		"a_linux.go":     "package p\nfunc OnLinux() {}\n",
		"a_windows.go":   "package p\nfunc Elsewhere() {}\n",
		"a_test.go":      "package p\nfunc TestF() {}\n",
		"a_otherwise.go": "//go:build !linux\n\npackage p\nfunc Otherwise() {}\n",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		files = append(files, file)
	}
	names, err := count(files)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"types": 2, "consts": 2, "vars": 1, "functions": 2, "methods": 2}, names)
}
