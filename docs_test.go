package conntrack_test

import (
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documented are the packages whose doc comments are tested, and how much they
// may lack.
var documented = []struct {
	dir string
	// unnamed is how many exported names may lack a doc comment that begins with
	// them.
	unnamed int
	// linked is how many of a hundred mentions of exported names are links.
	linked int
	// noExample is how many constructors and methods of Conn may lack an example.
	noExample int
}{
	{dir: ".", unnamed: 0, linked: 90, noExample: 0},
	{dir: "cttimeout", unnamed: 0, linked: 90, noExample: 0},
	{dir: "cttext", unnamed: 0, linked: 90, noExample: 0},
}

// TestDocComments asserts that the doc comment of each exported name begins with
// it, and that names in doc comments are links.
func TestDocComments(t *testing.T) {
	t.Parallel()
	for _, d := range documented {
		t.Run(d.dir, func(t *testing.T) {
			p := parsePackage(t, d.dir)
			entries := entriesOf(p)
			var unnamed []string
			links, plain := 0, make([]string, 0)
			for _, e := range entries {
				if !e.named() {
					unnamed = append(unnamed, e.full())
				}
				l, names := mentions(p, e)
				links += l
				for _, name := range names {
					plain = append(plain, name+" at "+e.full())
				}
			}
			t.Logf("%d exported names, %d without a doc comment that begins with them", len(entries), len(unnamed))
			assert.LessOrEqual(t, len(unnamed), d.unnamed, strings.Join(unnamed, "\n"))
			if total := links + len(plain); total > 0 {
				t.Logf("%d mentions of exported names, %d of 100 are links", total, 100*links/total)
				assert.GreaterOrEqual(t, 100*links/total, d.linked, strings.Join(plain, "\n"))
			}
		})
	}
}

// TestExamples asserts that there is an example for each constructor and each
// method of Conn.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, d := range documented {
		t.Run(d.dir, func(t *testing.T) {
			wanted, lacking := 0, make([]string, 0)
			want := func(receiver string, f *doc.Func) {
				wanted++
				if len(f.Examples) == 0 {
					lacking = append(lacking, receiver+f.Name)
				}
			}
			for _, typ := range parsePackage(t, d.dir).Types {
				for _, f := range typ.Funcs {
					want("", f)
				}
				if typ.Name == "Conn" {
					for _, f := range typ.Methods {
						want("Conn.", f)
					}
				}
			}
			t.Logf("%d constructors and methods of Conn, %d without an example", wanted, len(lacking))
			assert.LessOrEqual(t, len(lacking), d.noExample, strings.Join(lacking, "\n"))
		})
	}
}

// parsePackage returns the documentation of the package in dir, with examples.
func parsePackage(t *testing.T, dir string) *doc.Package {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	if len(paths) == 0 {
		t.Skip("no such package")
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	p, err := doc.NewFromFiles(fset, files, "github.com/ti-mo/conntrack/"+dir)
	require.NoError(t, err)
	return p
}

// An entry is an exported name with its doc comment.
type entry struct {
	receiver, name string
	doc            string
	inGroup        bool            // the doc comment is that of several constants or variables
	fields         map[string]bool // of the receiver, or of the type itself
}

func (e *entry) full() string {
	if e.receiver != "" {
		return e.receiver + "." + e.name
	}
	return e.name
}

// named reports whether the doc comment begins with the name.
func (e *entry) named() bool {
	if e.inGroup {
		return e.doc != ""
	}
	return regexp.MustCompile(`^(A |An |The )?` + e.name + `\b`).MatchString(e.doc)
}

func entriesOf(p *doc.Package) []entry {
	entries := slices.Concat(valueEntries(p.Consts), valueEntries(p.Vars))
	add := func(receiver string, fields map[string]bool, funcs []*doc.Func) {
		for _, f := range funcs {
			entries = append(entries, entry{receiver: receiver, name: f.Name, doc: f.Doc, fields: fields})
		}
	}
	add("", nil, p.Funcs)
	for _, typ := range p.Types {
		fields := fieldsOf(typ)
		entries = append(entries, entry{name: typ.Name, doc: typ.Doc, fields: fields})
		entries = append(entries, slices.Concat(valueEntries(typ.Consts), valueEntries(typ.Vars))...)
		add("", nil, typ.Funcs)
		add(typ.Name, fields, typ.Methods)
	}
	return entries
}

// valueEntries returns the entries of constants or variables. What has no comment
// of its own has that of its group.
func valueEntries(values []*doc.Value) (entries []entry) {
	for _, v := range values {
		for _, spec := range v.Decl.Specs {
			spec := spec.(*ast.ValueSpec)
			text, inGroup := v.Doc, v.Decl.Lparen.IsValid()
			if spec.Doc != nil {
				text, inGroup = spec.Doc.Text(), false
			}
			for _, name := range spec.Names {
				if name.IsExported() {
					entries = append(entries, entry{name: name.Name, doc: text, inGroup: inGroup})
				}
			}
		}
	}
	return entries
}

func fieldsOf(typ *doc.Type) map[string]bool {
	fields := make(map[string]bool)
	if s, ok := typ.Decl.Specs[0].(*ast.TypeSpec).Type.(*ast.StructType); ok {
		for _, field := range s.Fields.List {
			for _, name := range field.Names {
				fields[name.Name] = true
			}
		}
	}
	return fields
}

// word matches an identifier, with what it is selected from.
var word = regexp.MustCompile(`[A-Za-z]\w*(\.[A-Za-z]\w*)*`)

// mentions counts the links to exported names in the doc comment of e, and returns
// the names that stand there without being links. Its own name, its receiver and
// their fields count as neither.
func mentions(p *doc.Package, e entry) (links int, plain []string) {
	if e.inGroup {
		return 0, nil // which would be counted for each of the group
	}
	names := namesOf(p, e.receiver)
	for text := range texts(p.Parser().Parse(e.doc).Content) {
		before := "." // the last that stood before, a sentence's end
		for _, part := range text {
			switch part := part.(type) {
			case *comment.DocLink:
				if part.ImportPath == "" {
					links++
				}
				before = "x"
			case comment.Plain:
				s := string(part)
				for _, at := range word.FindAllStringIndex(s, -1) {
					lead := strings.TrimSpace(before + s[:at[0]])
					name := s[at[0]:at[1]]
					first := strings.HasSuffix(lead, ".") || strings.HasSuffix(lead, ":")
					if names[name] && !e.own(name) && !(first && isEnglish(name)) {
						plain = append(plain, name)
					}
				}
				before = s
			}
		}
	}
	return links, plain
}

func (e *entry) own(name string) bool {
	return name == e.name || name == e.receiver || name == e.full() || e.fields[name]
}

// isEnglish reports whether name may be an English word at the start of a sentence.
func isEnglish(name string) bool { return strings.ToLower(name[1:]) == name[1:] }

// namesOf returns the names that doc comments may mention: of the package, of the
// methods of receiver and of Conn, and of all methods with their receivers.
func namesOf(p *doc.Package, receiver string) map[string]bool {
	names := make(map[string]bool)
	for _, e := range entriesOf(p) {
		names[e.full()] = true
		if e.receiver == receiver || e.receiver == "Conn" {
			names[e.name] = true
		}
	}
	for _, alsoWord := range []string{"Error", "NAT"} {
		delete(names, alsoWord)
	}
	return names
}

// texts calls yield with the text of each paragraph, those of lists included.
func texts(blocks []comment.Block) func(yield func([]comment.Text) bool) {
	return func(yield func([]comment.Text) bool) {
		for _, b := range blocks {
			switch b := b.(type) {
			case *comment.Paragraph:
				if !yield(b.Text) {
					return
				}
			case *comment.List:
				for _, item := range b.Items {
					for text := range texts(item.Content) {
						if !yield(text) {
							return
						}
					}
				}
			}
		}
	}
}

var (
	markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeBlock    = regexp.MustCompile("(?ms)^```.*?^```$")
	heading      = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	notInAnchor  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// unknownNames is how many names that the documents mention may be missing.
const unknownNames = 0

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
	if _, err := os.Stat("docs"); err != nil {
		t.Skipf("no checkout: %v", err)
	}
	files := markdownFiles(t)
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
