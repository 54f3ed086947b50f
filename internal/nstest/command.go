//go:build linux

package nstest

import (
	"bytes"
	"os/exec"
	"strings"
)

// Conntrack runs the conntrack command inside the namespace, and returns what
// it prints on standard output. It skips the test where there is no such
// command.
func (n *NS) Conntrack(args ...string) string {
	n.t.Helper()
	path, err := exec.LookPath("conntrack")
	if err != nil {
		// Not everybody has the administrator's commands in the path.
		path, err = exec.LookPath("/usr/sbin/conntrack")
	}
	if err != nil {
		n.t.Skipf("no conntrack command: %v", err)
	}
	cmd := exec.Command(path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := n.ns.Do(cmd.Run); err != nil {
		n.t.Fatalf("conntrack %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}
