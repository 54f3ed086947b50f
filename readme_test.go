//go:build linux

package conntrack_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ti-mo/conntrack/internal/nstest"
)

// These flows are found by the programs in README.md: a translated TCP
// connection and a question to a name server.
var (
	readmeClient = netip.MustParseAddrPort("127.0.0.1:40000")
	readmeDialed = netip.MustParseAddrPort("127.0.0.1:80")
	readmeServer = netip.MustParseAddrPort("127.0.0.1:8080")
	readmeDNS    = netip.MustParseAddrPort("127.0.0.1:53")
)

// readmePrograms are the Go blocks of README.md, with their output.
var readmePrograms = []struct {
	name    string
	prints  string // a regular expression
	forever bool   // interrupted once it has printed that
}{
	{name: "first program", prints: `tcp.*127\.0\.0\.1(.*\n)*.*udp|udp.*127\.0\.0\.1(.*\n)*.*tcp`},
	{name: "read", prints: `^127\.0\.0\.1:40000 asked 127\.0\.0\.1:53 and got [1-9]\d* bytes\n$`},
	{name: "change", prints: `^deleted 1 flows, error: <nil>\n$`},
	{name: "watch", prints: `\[EventNew\](.*\n)+.*\[EventUpdate\].*\n`, forever: true},
	{name: "count and ask", prints: `^2 flows of [1-9]\d* error: <nil>\n` +
		`127\.0\.0\.1:40000 dialed 127\.0\.0\.1:80 and reached 127\.0\.0\.1:8080\n$`},
}

// TestReadme asserts that each Go block of README.md works. It creates a module
// with the commands in README.md and nothing else. All blocks but the first
// replace the loop of the first one, as README.md tells the reader.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the go command")
	}
	// This can only fail in a test binary that was copied to another machine:
	// go test has just built the package.
	if out, err := exec.Command("go", "build", ".").CombinedOutput(); err != nil {
		t.Skipf("no go command that can build here: %v\n%s", err, out)
	}
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	programs := blocks(string(text), "go")
	require.Len(t, programs, len(readmePrograms))
	module := newModule(t, programs[0], string(text))

	for i, program := range readmePrograms {
		t.Run(program.name, func(t *testing.T) {
			source := programs[0]
			if i > 0 {
				source = inPlaceOfLoop(t, source, programs[i])
			}
			runReadme(t, build(t, module, source), program.prints, program.forever)
		})
	}
}

// blocks returns the code blocks in the given language.
func blocks(markdown, language string) (texts []string) {
	re := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$")
	for _, match := range re.FindAllStringSubmatch(markdown, -1) {
		texts = append(texts, match[1])
	}
	return texts
}

// newModule creates a module with a program beside a checkout. It runs the
// commands of README.md that get the library.
func newModule(t *testing.T, program, readme string) (dir string) {
	t.Helper()
	checkout, err := os.Getwd()
	require.NoError(t, err)
	parent := t.TempDir()
	require.NoError(t, os.Symlink(checkout, filepath.Join(parent, "conntrack")))
	dir = filepath.Join(parent, "program")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
	sums, err := os.ReadFile("go.sum") // avoids the network
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))

	script := "go mod init example.org/program\n" + blocks(readme, "sh")[1]
	require.Contains(t, script, "-replace")
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

// inPlaceOfLoop returns the program with its loop replaced by code, and the
// imports that code needs.
func inPlaceOfLoop(t *testing.T, program, code string) string {
	t.Helper()
	loop := regexp.MustCompile(`(?ms)^\tfor .*^\t}\n`)
	require.Len(t, loop.FindAllString(program, -1), 1)
	program = loop.ReplaceAllLiteralString(program, "\t_ = ctx\n"+code)

	imports := []string{`"context"`, `"log"`, `"github.com/ti-mo/conntrack"`}
	for _, path := range []string{"errors", "fmt", "io/fs", "net/netip", "github.com/ti-mo/conntrack/netfilter"} {
		if strings.Contains(code, filepath.Base(path)+".") {
			imports = append(imports, fmt.Sprintf("%q", path))
		}
	}
	return regexp.MustCompile(`(?s)import \(.*?\)`).
		ReplaceAllLiteralString(program, "import (\n"+strings.Join(imports, "\n")+"\n)")
}

// build builds a program and returns its path.
func build(t *testing.T, module, source string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(module, "main.go"), []byte(source), 0o600))
	binary := filepath.Join(t.TempDir(), "program")
	for _, args := range [][]string{{"vet", "."}, {"build", "-o", binary, "."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = module
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", out, source)
	}
	return binary
}

func runReadme(t *testing.T, binary, prints string, forever bool) {
	t.Helper()
	ns := nstest.New(t, nstest.Accounting())
	ns.DNAT(unix.IPPROTO_TCP, readmeDialed, readmeServer)
	traffic := func() {
		ns.TCPThrough(readmeClient, readmeDialed, readmeServer)
		ns.UDP(readmeClient, readmeDNS, true)
	}
	if !forever {
		traffic()
	}
	p := ns.Start(exec.Command(binary))
	if forever {
		awaitListener(t, ns)
		traffic()
		p.AwaitStdout(prints)
		p.Interrupt()
		require.Equal(t, -1, p.Exit(), "it ended by itself")

		p = ns.Start(nstest.Unprivileged(exec.Command(binary)))
		require.Equal(t, 1, p.Exit())
		require.Contains(t, p.Stderr(), "CAP_NET_ADMIN")
		return
	}
	require.Zero(t, p.Exit(), p.Stderr())
	require.Regexp(t, prints, p.Stdout())
	require.Empty(t, p.Stderr())
}

// awaitListener waits until a socket of the namespace receives events.
func awaitListener(t *testing.T, ns *nstest.NS) {
	t.Helper()
	listening := regexp.MustCompile(fmt.Sprintf(`(?m)^\w+ +%d +\d+ +0*[1-9a-f]`, unix.NETLINK_NETFILTER))
	require.Eventually(t, func() bool {
		var sockets []byte
		ns.Do(func() (err error) {
			sockets, err = os.ReadFile("/proc/thread-self/net/netlink")
			return err
		})
		return listening.Match(sockets)
	}, 10*time.Second, time.Millisecond)
}
