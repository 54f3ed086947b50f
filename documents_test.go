package conntrack_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeBlock    = regexp.MustCompile("(?ms)^```.*?^```$")
	heading      = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	notInAnchor  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// unknownNames is how many names that the documents mention may be missing.
const unknownNames = 16

// TestDocumentedNames asserts that what README.md and docs say of exported names
// is about names that there are.
func TestDocumentedNames(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"NewFilter": true} // which v0.6.0 had
	for _, dir := range []string{".", "cttimeout", "cttext", "netfilter"} {
		if paths, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(paths) == 0 {
			continue
		}
		for _, e := range entriesOf(parsePackage(t, dir)) {
			known[e.name], known[e.full()] = true, true
			for field := range e.fields {
				known[field] = true
				if e.receiver == "" {
					known[e.name+"."+field] = true
				}
			}
		}
	}
	if len(known) == 1 {
		t.Skip("no checkout")
	}
	span := regexp.MustCompile("`(?:(?:conntrack|cttimeout|cttext|netfilter)\\.)?([A-Z]\\w*[a-z]\\w*(?:\\.[A-Z]\\w*)?)[`{(]")
	var unknown []string
	for _, file := range markdownFiles(t) {
		if file != "README.md" && filepath.Dir(file) != "docs" {
			continue
		}
		for _, match := range span.FindAllStringSubmatch(codeBlock.ReplaceAllString(readFile(t, file), ""), -1) {
			if name := match[1]; !known[name] {
				unknown = append(unknown, file+": "+name)
			}
		}
	}
	t.Logf("%d names are missing", len(unknown))
	assert.LessOrEqual(t, len(unknown), unknownNames, strings.Join(unknown, "\n"))
}

// TestLinks asserts that links of Markdown files to other files, and to headings,
// lead somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	files := markdownFiles(t)
	if len(files) == 0 {
		t.Skip("no checkout")
	}
	links := 0
	for _, file := range files {
		text := codeBlock.ReplaceAllString(readFile(t, file), "")
		for _, match := range markdownLink.FindAllStringSubmatch(text, -1) {
			path, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			links++
			target := filepath.Join(filepath.Dir(file), path)
			if path == "" {
				target = file
			}
			if _, err := os.Stat(target); !assert.NoError(t, err, "%s: link to %s", file, match[1]) {
				continue
			}
			if anchor != "" {
				assert.Contains(t, anchors(readFile(t, target)), anchor, "%s: link to %s", file, match[1])
			}
		}
	}
	require.NotZero(t, links)
}

func markdownFiles(t *testing.T) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
		return err
	}))
	return files
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// anchors returns the names by which links reach the headings of a file, as GitHub
// makes them.
func anchors(markdown string) (names []string) {
	for _, match := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(markdown, ""), -1) {
		name := notInAnchor.ReplaceAllString(strings.ToLower(match[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}
