//go:build linux

package main

import (
	"bytes"
	"fmt"
	"path/filepath"
)

// archive is an initramfs: an uncompressed cpio archive in "newc" format, which
// the kernel unpacks as its root directory.
type archive struct {
	content bytes.Buffer
	dirs    map[string]bool
}

func newArchive() *archive {
	return &archive{dirs: map[string]bool{"/": true}}
}

// file adds a file that everybody may read and execute, and its parent
// directories.
func (a *archive) file(path string, content []byte) {
	a.dir(filepath.Dir(path))
	a.entry(path, 0o100755, content)
}

// dir adds a directory and its parents, unless they exist.
func (a *archive) dir(path string) {
	if a.dirs[path] {
		return
	}
	a.dirs[path] = true
	a.dir(filepath.Dir(path))
	a.entry(path, 0o040755, nil)
}

// bytes completes the archive and returns it.
func (a *archive) bytes() []byte {
	a.entry("/TRAILER!!!", 0, nil)
	return a.content.Bytes()
}

// entry adds a header of 13 numbers, the name and the content. Name and content
// are padded to four bytes.
func (a *archive) entry(path string, mode uint32, content []byte) {
	name := path[1:] + "\x00"
	header := [13]uint32{1: mode, 4: 1 /* link */, 6: uint32(len(content)), 11: uint32(len(name))}
	a.content.WriteString("070701")
	for _, number := range header {
		fmt.Fprintf(&a.content, "%08x", number)
	}
	a.content.WriteString(name)
	a.pad()
	a.content.Write(content)
	a.pad()
}

func (a *archive) pad() {
	a.content.Write(make([]byte, -a.content.Len()&3))
}
