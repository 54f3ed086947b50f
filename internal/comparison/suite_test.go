//go:build linux

package comparison_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/conntrack/cttext"
	"github.com/ti-mo/conntrack/internal/nstest"
)

// suiteVariable is an environment variable with the path of
// tests/conntrack/testsuite in the source of conntrack-tools.
const suiteVariable = "CONNTRACK_TESTSUITE"

// TestSuite asserts that the commands of conntrack-tools' own test suite
// succeed or fail as the suite says.
//
// Each line of its files has a command and, after a semicolon, what to do with
// it:
//
//	OK, BAD   run it with the pending lines as input, and compare the exit status
//	|s/A/B/g  run it, edit its output, and make that pending
//	nothing   make the line itself pending
//
// Lines that start with a blank or # are comments. The commands depend on each
// other.
func TestSuite(t *testing.T) {
	dir := os.Getenv(suiteVariable)
	if dir == "" {
		t.Skipf("%s is not set", suiteVariable)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	s := suite{conn: dial(t, nstest.New(t, nstest.NoTracking()))}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			if line[0] != '#' && line[0] != ' ' {
				s.line(t, fmt.Sprintf("%s:%d", filepath.Base(file), n), suiteTypos.Replace(line))
			}
		}
	}
	t.Logf("%d commands ended as the suite says", s.passed)
	require.Greater(t, s.passed, 250)
}

// suiteTypos adds a missing blank after the zone. conntrack(8) reads the zone
// and ignores the rest, which it takes for further arguments.
var suiteTypos = strings.NewReplacer("-w 10-s ", "-w 10 -s ", "-w 11-s ", "-w 11 -s ")

type suite struct {
	conn *conntrack.Conn
	// input is the pending lines for the next command.
	input  []string
	passed int
}

func (s *suite) line(t *testing.T, where, line string) {
	t.Helper()
	command, then, ok := strings.Cut(line, ";")
	require.True(t, ok, "%s: %s", where, line)
	command, then = strings.TrimSpace(command), strings.TrimSpace(then)
	switch {
	case then == "":
		s.input = append(s.input, command)
	case then[0] == '|':
		flows, err := carryOutLine(s.conn, command)
		require.NoError(t, err, "%s: %s", where, command)
		for _, f := range flows {
			s.input = append(s.input, edit(savedLine(command, f), then[1:]))
		}
	default:
		require.Contains(t, []string{"OK", "BAD"}, then, "%s: %s", where, line)
		err := s.run(command)
		if (err == nil) != (then == "OK") {
			t.Errorf("%s: %s: not %s: %v", where, command, then, err)
			return
		}
		s.passed++
	}
}

// run runs a command. If it is -R -, it reads the pending lines.
func (s *suite) run(command string) error {
	if command != "-R -" {
		_, err := carryOutLine(s.conn, command)
		return err
	}
	// All lines are parsed before the first one is carried out.
	var commands []cttext.Command
	for _, line := range s.input {
		if line == "" || line[0] == '#' {
			continue
		}
		c, err := cttext.Options{}.ParseCommand(line)
		if err != nil {
			return err
		}
		commands = append(commands, c)
	}
	s.input = nil
	for _, c := range commands {
		if _, err := carryOut(s.conn, &c); err != nil {
			return err
		}
	}
	return nil
}

// savedLine returns what a command with -o save prints for a flow.
func savedLine(command string, f conntrack.Flow) string {
	o := cttext.Options{Save: true}
	if strings.HasPrefix(command, "-D") {
		return o.Event(&conntrack.Event{Type: conntrack.EventDestroy, Flow: &f})
	}
	return o.Flow(&f)
}

// edit applies s commands of sed(1) to a line. The suite only has simple ones.
func edit(line, script string) string {
	for command := range strings.SplitSeq(script, ";") {
		if parts := strings.Split(strings.TrimSpace(command), "/"); len(parts) == 4 && parts[0] == "s" {
			line = strings.ReplaceAll(line, parts[1], parts[2])
		}
	}
	return line
}
