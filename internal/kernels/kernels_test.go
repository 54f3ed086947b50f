//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// begun is the output of a package whose tests did not finish.
const begun = "=== RUN   TestGood\n--- PASS: TestGood (0.00s)\n" +
	"=== RUN   TestOld\n    a_test.go:1: needs\n        Linux 9.9\n--- SKIP: TestOld (0.00s)\n"

// read returns how a report ends and what is printed about it.
func read(t *testing.T, text string) (verdict, printed string, err error) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	var out bytes.Buffer
	r := report{out: &out}
	if err := r.read(strings.NewReader(text)); err != nil {
		return "", out.String(), err
	}
	verdict, err = r.verdict()
	return verdict, out.String(), err
}

// marked returns the output of a package with the marks around it.
func marked(output string, status int) string {
	var text strings.Builder
	mark(&text, markBegin, "some/package")
	text.WriteString(output)
	mark(&text, markEnd, status, 1500)
	return text.String()
}

const done = "\n" + markPrefix + markDone + "\n"

func TestReport(t *testing.T) {
	t.Parallel()
	verdict, printed, err := read(t, marked(begun+"PASS\n", 0)+done)
	require.NoError(t, err)
	assert.Equal(t, "1 passed, 0 failed, 1 skipped", verdict)
	assert.Equal(t, "ok   some/package: 1 passed, 0 failed, 1 skipped in 1.5 s\n"+
		"     skipped TestOld: a_test.go:1: needs Linux 9.9\n", printed)
}

func TestReportOfFailures(t *testing.T) {
	t.Parallel()
	const failing = "=== RUN   TestBad\n    a_test.go:2: wrong\n--- FAIL: TestBad (7.00s)\n"
	tests := []struct {
		name, text string
		wantErr    string
		want       []string
	}{
		{"test fails", marked(begun+failing+"FAIL\n", 1) + done, "packages that failed: 1",
			[]string{"FAIL some/package: 1 passed, 1 failed", "a_test.go:2: wrong", "slow: TestBad, 7.0 s"}},
		{"test fails once", marked(failing+"=== RUN   TestBad\n--- PASS: TestBad (0.00s)\n"+begun+"FAIL\n", 1) + done, "packages that failed: 1",
			[]string{"FAIL some/package: 1 passed, 1 failed", "a_test.go:2: wrong"}},
		{"fails after the tests", marked(begun+"PASS\nleak\n", 1) + done, "packages that failed: 1",
			[]string{"exit status 1", "leak"}},
		{"panic", marked(begun+"=== RUN   TestBad\npanic: oh\n\ngoroutine 1", 2) + done, "packages that failed: 1",
			[]string{"1 passed, 1 failed", "panic: oh", "goroutine 1"}},
		{"machine stops in a test", marked(begun+"PASS\n", 0) + "\n" + markPrefix + "begin other\n=== RUN   TestGood\n=== PAUSE TestGood\n=== RUN   TestBad\nhere", "not complete",
			[]string{"ok   some/package", "FAIL other: 0 passed, 2 failed", "did not end: TestBad", "here"}},
		{"machine stops between packages", marked(begun+"PASS\n", 0), "not complete", []string{"ok   some/package"}},
		{"machine stops in a mark", "\n" + markPrefix + "begin other\n" + markPrefix + "end 0", "not complete",
			[]string{"FAIL other: 0 passed, 0 failed", "did not end"}},
		{"nothing", "", "not complete", nil},
		{"no test", marked("PASS\n", 0) + done, "no test ran", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, printed, err := read(t, tt.text)
			require.ErrorContains(t, err, tt.wantErr)
			for _, want := range tt.want {
				assert.Contains(t, printed, want)
			}
			assert.NotContains(t, printed, "TestGood")
		})
	}
}

// TestArchive asserts that cpio, if installed, can list an archive.
func TestArchive(t *testing.T) {
	t.Parallel()
	a := newArchive()
	a.file("/dir/sub/odd", []byte("12345"))
	a.file("/dir/even", []byte("1234"))
	content := a.bytes()
	assert.Zero(t, len(content)%4)

	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(cpio, "--list", "--quiet")
	cmd.Stdin = bytes.NewReader(content)
	list, err := cmd.Output()
	require.NoError(t, err)
	assert.Equal(t, "dir\ndir/sub\ndir/sub/odd\ndir/even\n", string(list))
}

func TestTestFlag(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"-count=3":      "-test.count=3",
		"--short":       "-test.short",
		"-test.v":       "-test.v",
		"TestSomething": "TestSomething",
	} {
		assert.Equal(t, want, testFlag(arg), arg)
	}
}

func TestParseSource(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]source{
		"6.1":            {release: "6.1"},
		"7@sid":          {release: "7", suite: "sid"},
		"5.10@bullseye?": {release: "5.10", suite: "bullseye", mayBeGone: true},
	} {
		assert.Equal(t, want, parseSource(s), s)
	}
}

func TestNewest(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip(err)
	}
	var shown strings.Builder
	for _, version := range []string{"6.1.9-1", "6.1.192-2", "6.1.20-1"} {
		fmt.Fprintf(&shown, "Package: linux-%s\nVersion: %s\nDescription: x\n\n", version, version)
	}
	name, version, err := newest([]byte(shown.String()))
	require.NoError(t, err)
	assert.Equal(t, "linux-6.1.192-2", name)
	assert.Equal(t, "6.1.192-2", version)
}
