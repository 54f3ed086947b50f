// Package release returns the release of the running Linux kernel.
package release

import (
	"fmt"
	"os"
)

// A Release is the number of a kernel release, without the parts that features
// do not depend on.
type Release struct {
	Major, Minor int
}

// Less reports whether r is older than other.
func (r Release) Less(other Release) bool {
	return r.Major < other.Major || r.Major == other.Major && r.Minor < other.Minor
}

func (r Release) String() string { return fmt.Sprintf("%d.%d", r.Major, r.Minor) }

// Running returns the release of the running kernel. It reads
// /proc/sys/kernel/osrelease.
func Running() (Release, error) {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return Release{}, err
	}
	return Parse(string(b))
}

// Parse parses the output of uname -r, such as 6.1.0-21-cloud-amd64.
func Parse(s string) (Release, error) {
	var r Release
	if _, err := fmt.Sscanf(s, "%d.%d", &r.Major, &r.Minor); err != nil {
		return Release{}, fmt.Errorf("kernel release %q: %w", s, err)
	}
	return r, nil
}
