//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// kernel is one that was unpacked from its package.
type kernel struct {
	version string // as uname -r tells it
	image   string // the file to boot
	tree    string // the directory with its modules
}

// findKernel returns the newest kernel of a release, as in "6.1". It is
// downloaded if it is not in the cache. Where that fails, the lists of packages
// may be out of date, so they are renewed once.
func findKernel(release string) (kernel, error) {
	k, err := cachedKernel(release)
	if err == nil {
		return k, nil
	}
	if _, update := output("", "apt-get", "update", "-q"); update != nil {
		return kernel{}, errors.Join(err, update)
	}
	return cachedKernel(release)
}

func cachedKernel(release string) (kernel, error) {
	name, version, err := newestPackage(release)
	if err != nil {
		return kernel{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return kernel{}, err
	}
	all := filepath.Join(cache, "conntrack-kernels", release)
	dir := filepath.Join(all, name+"_"+version)
	if _, err := os.Stat(dir); err != nil {
		if err := unpack(name+"="+version, all, dir); err != nil {
			return kernel{}, err
		}
	}
	return unpacked(dir)
}

// newestPackage returns the package with the newest kernel of a release, and
// the package's version.
func newestPackage(release string) (name, version string, err error) {
	pattern := `^linux-image-` + regexp.QuoteMeta(release) + `\.[0-9][^ ]*-cloud-amd64$`
	names, err := output("", "apt-cache", "search", "--names-only", pattern)
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
	packages, err := output("", "apt-cache", args...)
	if err != nil {
		return "", "", err
	}
	return newest(packages)
}

// newest returns the package with the highest version from what apt-cache
// shows of several.
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

// unpack downloads a package and unpacks it into dir, which is there only when
// all of it is. Everything else in the directory all is out of date, and is
// removed.
func unpack(pkg, all, dir string) error {
	if err := os.RemoveAll(all); err != nil {
		return err
	}
	if err := os.MkdirAll(all, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(all, "download")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := output(tmp, "apt-get", "download", "-q", pkg); err != nil {
		return err
	}
	deb, err := one(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	content := filepath.Join(tmp, "content")
	if _, err := output("", "dpkg", "-x", deb, content); err != nil {
		return err
	}
	return os.Rename(content, dir)
}

// unpacked finds the kernel in the content of its package.
func unpacked(dir string) (kernel, error) {
	image, err := one(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil {
		return kernel{}, err
	}
	version := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
	tree := filepath.Join(dir, "lib", "modules", version)
	if _, err := os.Stat(tree); err != nil {
		tree = filepath.Join(dir, "usr", "lib", "modules", version)
	}
	return kernel{version, image, tree}, nil
}

// one returns the only file that matches a pattern.
func one(pattern string) (string, error) {
	files, err := filepath.Glob(pattern)
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("%d files match %s, not one", len(files), pattern)
	}
	if err != nil {
		return "", err
	}
	return files[0], nil
}

// output runs a command in a directory, and returns what it prints on standard
// output. The error holds what it prints on standard error.
func output(dir, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return out, err
}
