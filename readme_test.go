package conntrack_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every Go block of README.md is a whole file that compiles and passes go vet.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}

	// Only a test binary that was carried elsewhere can fail here: go test has
	// just built the same package.
	if out, err := exec.Command("go", "build", ".").CombinedOutput(); err != nil {
		t.Skipf("no go command that can build here: %v\n%s", err, out)
	}

	readme, err := filepath.Abs("README.md")
	require.NoError(t, err)
	text, err := os.ReadFile(readme)
	require.NoError(t, err)

	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatchIndex(string(text), -1)
	require.NotEmpty(t, blocks)

	for _, b := range blocks {
		line := 1 + strings.Count(string(text[:b[2]]), "\n")

		t.Run(fmt.Sprintf("line %d", line), func(t *testing.T) {
			// The line directive lets the compiler complain about README.md.
			src := fmt.Sprintf("//line %s:%d\n%s", readme, line, text[b[2]:b[3]])
			file := filepath.Join(t.TempDir(), "main.go")
			require.NoError(t, os.WriteFile(file, []byte(src), 0o600))

			out, err := exec.Command("go", "vet", file).CombinedOutput()
			require.NoError(t, err, string(out))
		})
	}
}
