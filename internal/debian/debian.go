//go:build linux

// Package debian downloads packages from any suite of Debian's archive. Tests
// use it for other kernels and other versions of programs than the installed
// ones.
package debian

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A Suite is a release of Debian, such as sid, in the archive that the system
// uses. The zero Suite is the system's own package sources.
type Suite struct {
	root string // directory of apt's files, or ""
}

// Open returns the suite with the given name. It fetches the lists of packages
// into the user's cache directory. An empty name means the system's own
// sources.
func Open(name string) (Suite, error) {
	if name == "" {
		return Suite{}, nil
	}
	cache, err := Cache("apt")
	if err != nil {
		return Suite{}, err
	}
	s := Suite{root: filepath.Join(cache, name)}
	if err := s.configure(name); err != nil {
		return Suite{}, fmt.Errorf("debian: suite %s: %w", name, err)
	}
	if _, err := s.Run("", "apt-get", "update", "-q"); err != nil {
		return Suite{}, fmt.Errorf("debian: suite %s: %w", name, err)
	}
	return s, nil
}

// Cache returns a directory for files that can be downloaded again.
func Cache(name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "conntrack-tests", name)
	return dir, os.MkdirAll(dir, 0o755)
}

// configure creates apt's directories, with a single package source.
func (s Suite) configure(name string) error {
	site, err := archive()
	if err != nil {
		return err
	}
	for _, dir := range []string{"etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o755); err != nil {
			return err
		}
	}
	const keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
	sources := fmt.Sprintf("deb [signed-by=%s] %s %s main\ndeb-src [signed-by=%s] %s %s main\n", keys, site, name, keys, site, name)
	return errors.Join(
		os.WriteFile(filepath.Join(s.root, "etc/apt/sources.list"), []byte(sources), 0o644),
		os.WriteFile(filepath.Join(s.root, "var/lib/dpkg/status"), nil, 0o644),
	)
}

// archive returns the address of the system's package archive.
func archive() (string, error) {
	out, err := Output("", "apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Identifier: Packages")
	if err != nil {
		return "", err
	}
	var sites []string
	for line := range strings.Lines(string(out)) {
		// Suites for updates and security are incomplete or in another archive.
		if f := strings.Fields(line); len(f) == 3 && f[2] == "main" && !strings.Contains(f[1], "-") {
			sites = append(sites, f[0])
		}
	}
	i := slices.IndexFunc(sites, func(site string) bool { return strings.HasSuffix(strings.TrimSuffix(site, "/"), "/debian") })
	if i < 0 {
		return "", errors.New("the system's package sources name no Debian archive")
	}
	return sites[i], nil
}

// Run runs a command of apt in dir and returns its output.
func (s Suite) Run(dir, command string, args ...string) ([]byte, error) {
	if s.root == "" {
		return Output(dir, command, args...)
	}
	return run(dir, []string{"APT_CONFIG=/dev/null"}, command, append([]string{
		"-o", "Dir=" + s.root,
		"-o", "Dir::State::status=" + filepath.Join(s.root, "var/lib/dpkg/status"),
		"-o", "APT::Sandbox::User=root",
		"-o", "Acquire::Languages=none",
	}, args...)...)
}

// Unpack downloads packages and unpacks them into dir. It creates dir only once
// everything is unpacked.
func (s Suite) Unpack(dir string, packages ...string) error {
	return unpack(dir, func(tmp, content string) error {
		if _, err := s.Run(tmp, "apt-get", append([]string{"download", "-q"}, packages...)...); err != nil {
			return err
		}
		debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
		if err != nil {
			return err
		}
		for _, deb := range debs {
			if _, err := Output("", "dpkg", "-x", deb, content); err != nil {
				return err
			}
		}
		return nil
	})
}

// UnpackSource does the same with the upstream source of a package.
func (s Suite) UnpackSource(dir, pkg string) error {
	return unpack(dir, func(tmp, content string) error {
		if _, err := s.Run(tmp, "apt-get", "source", "-q", "--download-only", "--tar-only", pkg); err != nil {
			return err
		}
		tarball, err := One(filepath.Join(tmp, pkg+"_*.orig.tar.*"))
		if err != nil {
			return err
		}
		_, err = Output("", "tar", "-x", "-C", content, "--strip-components=1", "-f", tarball)
		return err
	})
}

// unpack makes dir by a function that is given two directories: one to download
// to, and what becomes dir if all is well.
func unpack(dir string, get func(tmp, content string) error) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "download")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	content := filepath.Join(tmp, "content")
	if err := os.Mkdir(content, 0o755); err != nil {
		return err
	}
	if err := get(tmp, content); err != nil {
		return err
	}
	return os.Rename(content, dir)
}

// One returns the only file that matches a pattern.
func One(pattern string) (string, error) {
	files, err := filepath.Glob(pattern)
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("%d files match %s, not one", len(files), pattern)
	}
	if err != nil {
		return "", err
	}
	return files[0], nil
}

// Output runs a command in dir and returns its standard output. An error
// contains the standard error.
func Output(dir, name string, args ...string) ([]byte, error) { return run(dir, nil, name, args...) }

func run(dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return out, err
}
