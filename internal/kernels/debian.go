//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ti-mo/conntrack/internal/debian"
)

// A kernel is a kernel unpacked from its package.
type kernel struct {
	version string // as printed by uname -r
	image   string // the file to boot
	tree    string // directory of its modules
}

// A source says where to get a kernel.
type source struct {
	release string // start of its version
	suite   string // of Debian, or "" for the system's own package sources
	// mayBeGone is set if the kernel is optional: the archive does not serve
	// old suites forever.
	mayBeGone bool
}

// parseSource parses a source such as 6.1, 7@sid or 5.10@bullseye?.
func parseSource(s string) source {
	s, gone := strings.CutSuffix(s, "?")
	release, suite, _ := strings.Cut(s, "@")
	return source{release, suite, gone}
}

// findKernel returns the newest kernel of a source, downloading it if it is not
// in the cache. If that fails, it updates the lists of packages, which may be
// out of date, and tries once more.
func findKernel(from source) (kernel, error) {
	suite, err := debian.Open(from.suite)
	if err != nil {
		return kernel{}, err
	}
	k, err := cachedKernel(suite, from.release)
	if err == nil || from.suite != "" {
		return k, err
	}
	if _, update := suite.Run("", "apt-get", "update", "-q"); update != nil {
		return kernel{}, errors.Join(err, update)
	}
	return cachedKernel(suite, from.release)
}

func cachedKernel(suite debian.Suite, release string) (kernel, error) {
	name, version, err := newestPackage(suite, release)
	if err != nil {
		return kernel{}, err
	}
	all, err := debian.Cache(filepath.Join("kernels", release))
	if err != nil {
		return kernel{}, err
	}
	dir := filepath.Join(all, name+"_"+version)
	if _, err := os.Stat(dir); err != nil {
		// All other kernels there are out of date.
		if err := os.RemoveAll(all); err != nil {
			return kernel{}, err
		}
		if err := os.MkdirAll(all, 0o755); err != nil {
			return kernel{}, err
		}
		packages, err := parts(suite, name+"="+version)
		if err != nil {
			return kernel{}, err
		}
		if err := suite.Unpack(dir, packages...); err != nil {
			return kernel{}, err
		}
	}
	return unpacked(dir)
}

// newestPackage returns the package with the newest kernel of a release, and
// its version.
func newestPackage(suite debian.Suite, release string) (name, version string, err error) {
	pattern := `^linux-image-` + regexp.QuoteMeta(release) + `\.[0-9][^ ]*-cloud-amd64$`
	names, err := suite.Run("", "apt-cache", "search", "--names-only", pattern)
	if err != nil {
		return "", "", err
	}
	args := []string{"show", "--no-all-versions"}
	for line := range strings.Lines(string(names)) {
		args = append(args, strings.Fields(line)[0])
	}
	if len(args) == 2 {
		return "", "", fmt.Errorf("the package sources offer no %s", pattern)
	}
	packages, err := suite.Run("", "apt-cache", args...)
	if err != nil {
		return "", "", err
	}
	return newest(packages)
}

// partOf matches the packages that a kernel is split into since Linux 7.
var partOf = regexp.MustCompile(`(linux-(?:binary|modules)-[^ ]+) \(= ([^)]+)\)`)

// parts returns a kernel's package and the packages that it is split into.
func parts(suite debian.Suite, pkg string) ([]string, error) {
	shown, err := suite.Run("", "apt-cache", "show", pkg)
	if err != nil {
		return nil, err
	}
	packages := []string{pkg}
	for _, m := range partOf.FindAllStringSubmatch(string(shown), -1) {
		packages = append(packages, m[1]+"="+m[2])
	}
	return packages, nil
}

// newest returns the package with the highest version in the output of
// apt-cache.
func newest(packages []byte) (name, version string, err error) {
	var current string
	for line := range strings.Lines(string(packages)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Package":
			current = value
		case "Version":
			if version == "" || exec.Command("dpkg", "--compare-versions", value, "gt", version).Run() == nil {
				name, version = current, value
			}
		}
	}
	if name == "" {
		return "", "", errors.New("apt-cache shows no version")
	}
	return name, version, nil
}

// unpacked finds the kernel in its unpacked packages. Since Linux 7, the image
// is next to the modules, and both are below /usr.
func unpacked(dir string) (kernel, error) {
	tree, err := debian.One(filepath.Join(dir, "lib", "modules", "*"))
	if err != nil {
		tree, err = debian.One(filepath.Join(dir, "usr", "lib", "modules", "*"))
	}
	if err != nil {
		return kernel{}, err
	}
	version := filepath.Base(tree)
	image := filepath.Join(dir, "boot", "vmlinuz-"+version)
	if _, err := os.Stat(image); err != nil {
		image = filepath.Join(tree, "vmlinuz")
	}
	return kernel{version, image, tree}, nil
}
