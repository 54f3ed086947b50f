//go:build linux

package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ti-mo/conntrack/internal/debian"
)

// wanted are prefixes of the modules that tests use: connection tracking with
// its helpers, the parts of nftables rules that use it, and virtual links.
// Declared dependencies are added to them. Modules that they request only when
// loaded, which are text search algorithms, come first.
var wanted = []string{
	"ts_",
	"nf_conntrack", "nf_nat", "nf_synproxy", "nfnetlink",
	"nf_tables", "nft_ct", "nft_objref", "nft_chain_nat", "nft_nat", "nft_masq", "nft_redir", "nft_reject",
	"nft_connlimit", "nft_flow_offload", "nft_compat", "xt_CT", "xt_tcpudp", "xt_esp", "nft_synproxy", "nft_numgen", "nft_limit", "nft_log", "nft_queue",
	"veth", "dummy",
}

// module is a part of a kernel that must be loaded.
type module struct {
	name string
	code []byte
}

// modules returns the wanted modules of a kernel, each after its dependencies.
// Built-in modules are not included.
func (k kernel) modules() ([]module, error) {
	files, err := k.moduleFiles()
	if err != nil {
		return nil, err
	}
	l := loader{files: files, done: make(map[string]bool)}
	names := slices.Sorted(maps.Keys(files))
	for _, prefix := range wanted {
		for _, name := range names {
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			if err := l.load(name); err != nil {
				return nil, err
			}
		}
	}
	return l.loaded, nil
}

// moduleFiles returns the files of all modules, by name.
func (k kernel) moduleFiles() (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(k.tree, func(path string, _ fs.DirEntry, err error) error {
		if base, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok {
			files[strings.ReplaceAll(base, "-", "_")] = path
		}
		return err
	})
	return files, err
}

// loader sorts modules by their dependencies.
type loader struct {
	files  map[string]string
	done   map[string]bool
	loaded []module
}

// load adds a module after its dependencies, unless it was added before.
func (l *loader) load(name string) error {
	if l.done[name] {
		return nil
	}
	l.done[name] = true
	path, ok := l.files[name]
	if !ok {
		return fmt.Errorf("no module %s", name)
	}
	code, err := readModule(path)
	if err != nil {
		return err
	}
	needed, err := dependencies(code)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, other := range needed {
		if err := l.load(other); err != nil {
			return fmt.Errorf("%s needs %s: %w", name, other, err)
		}
	}
	l.loaded = append(l.loaded, module{name, code})
	return nil
}

func readModule(path string) ([]byte, error) {
	if strings.HasSuffix(path, ".xz") {
		return debian.Output("", "xz", "-dc", path)
	}
	return os.ReadFile(path)
}

// dependencies returns the names of the modules that a module needs.
func dependencies(code []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for _, line := range bytes.Split(info, []byte{0}) {
		if names, ok := strings.CutPrefix(string(line), "depends="); ok && names != "" {
			return strings.Split(names, ","), nil
		}
	}
	return nil, nil
}
