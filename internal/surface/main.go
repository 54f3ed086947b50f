// Surface counts the exported names and the files of the root package.
//
//	go run ./internal/surface [-strict]
package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"log"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// These are the limits for the root package.
const (
	maxNames = 260
	maxFiles = 55
)

func main() {
	log.SetFlags(0)
	strict := flag.Bool("strict", false, "fail beyond the limits")
	flag.Parse()
	files, err := filepath.Glob("*.go")
	if err != nil {
		log.Fatal(err)
	}
	names, err := count(files)
	if err != nil {
		log.Fatal(err)
	}
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(names)) {
		fmt.Printf("%4d %s\n", names[kind], kind)
		total += names[kind]
	}
	fmt.Printf("%4d exported names, at most %d\n", total, maxNames)
	fmt.Printf("%4d Go files, at most %d\n", len(files), maxFiles)
	if *strict && (total > maxNames || len(files) > maxFiles) {
		log.Fatal("too many")
	}
}

// count counts the exported names that a package of these files has on Linux,
// by kind.
func count(files []string) (map[string]int, error) {
	linux := build.Default
	linux.GOOS = "linux"
	names := map[string]int{}
	for _, file := range files {
		match, err := linux.MatchFile(filepath.Split(file))
		if err != nil {
			return nil, err
		}
		if !match || strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				countFunc(names, d)
			case *ast.GenDecl:
				countSpecs(names, d)
			}
		}
	}
	return names, nil
}

func countFunc(names map[string]int, d *ast.FuncDecl) {
	switch {
	case !d.Name.IsExported():
	case d.Recv == nil:
		names["functions"]++
	case ast.IsExported(receiver(d.Recv.List[0].Type)):
		names["methods"]++
	}
}

// receiver returns the name of a receiver's type.
func receiver(typ ast.Expr) string {
	switch typ := typ.(type) {
	case *ast.StarExpr:
		return receiver(typ.X)
	case *ast.IndexExpr:
		return receiver(typ.X)
	case *ast.IndexListExpr:
		return receiver(typ.X)
	case *ast.Ident:
		return typ.Name
	}
	return ""
}

func countSpecs(names map[string]int, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() {
				names["types"]++
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() {
					names[d.Tok.String()+"s"]++ // consts, vars
				}
			}
		}
	}
}
