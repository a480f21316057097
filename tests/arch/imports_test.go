// Package arch_test holds the rules of the house that a compiler does not: who may import whom, and who may spell a
// key of Redis. It parses the sources itself, so that a cached result cannot hide a change.
package arch_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/relay-jobs/relay/"

// source is one Go file. Paths have slashes and start at the repository's root.
type source struct {
	file, dir string
	test      bool
	syntax    *ast.File
	imports   []string // those of this module without its name
}

// sources parses every Go file of the repository.
func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var list []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(p, ".go"):
			return nil
		}
		content, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		s, err := parse(fset, filepath.ToSlash(rel), content)
		list = append(list, s)
		return err
	})
	require.NoError(t, err)
	require.Greater(t, len(list), 30, "the walk missed the sources")
	return list
}

func parse(fset *token.FileSet, file string, content []byte) (source, error) {
	syntax, err := parser.ParseFile(fset, file, content, parser.SkipObjectResolution)
	if err != nil {
		return source{}, fmt.Errorf("parse %s: %w", file, err)
	}
	s := source{file: file, dir: path.Dir(file), test: strings.HasSuffix(file, "_test.go"), syntax: syntax}
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("imports of %s: %w", file, err)
		}
		s.imports = append(s.imports, strings.TrimPrefix(imported, module))
	}
	return s, nil
}

// under tells whether p is dir or below it. The dir "a/*" stands for everything below a.
func under(p, dir string) bool {
	if below, ok := strings.CutSuffix(dir, "/*"); ok {
		return strings.HasPrefix(p, below+"/")
	}
	return p == dir || strings.HasPrefix(p, dir+"/")
}

func underAny(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return under(p, d) })
}

// standard tells whether an import path belongs to the standard library: its first part has no dot, and it is none of
// this module's rooms.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".") && !slices.Contains(rooms(), first)
}

func rooms() []string { return []string{"core", "ports", "adapters", "app", "tests"} }

// rule says what files may import. One of allow and only is set.
type rule struct {
	name  string
	in    []string // the files that the rule is about, by folder
	not   []string // folders that it is not about
	files string   // "", or a file name that the rule is not about
	allow []string // what may be imported besides the standard library
	only  []string // what may be imported by nobody but the folders of not
	why   string
}

func rules() []rule {
	return []rule{
		{
			name: "core is pure", in: []string{"core"}, not: []string{"core/usecase"}, allow: []string{"core"},
			why: "the rules are tested without anything around them, and no adapter can change them",
		},
		{
			name: "use cases see ports", in: []string{"core/usecase"}, allow: []string{"core", "ports"},
			why: "a use case that knows an adapter cannot be tested without it",
		},
		{
			name: "ports speak core", in: []string{"ports"}, not: []string{"ports/portsmock"}, allow: []string{"core"},
			why: "a driver's type in a port makes every adapter an adapter to that driver",
		},
		{
			name: "fx stays at the edge", in: rooms(), not: []string{"app", "tests/harness"}, files: "module.go",
			only: []string{"go.uber.org/fx"},
			why:  "everything works without the container",
		},
		{
			name: "gin is one adapter's", in: rooms(), not: []string{"adapters/httpapi", "tests/bench"},
			only: []string{"github.com/gin-gonic/gin"},
			why:  "HTTP is translated in one place",
		},
		{
			name: "redis stays at its edge", in: rooms(),
			not:  []string{"adapters/redisjobs", "adapters/telemetry", "app", "tests"},
			only: []string{"github.com/redis/go-redis/v9"},
			why:  "who else talks to Redis passes by the scripts; telemetry measures the client, app makes it",
		},
		{
			name: "only app binds", in: []string{"core", "ports", "adapters"}, only: []string{"app"},
			why: "what binds ports to adapters is bound by nobody",
		},
		{
			name: "tests are not shipped", in: []string{"core", "ports", "adapters", "app"}, only: []string{"tests"},
			why: "the product does not hold its harness",
		},
	}
}

// broken gives what is wrong with s by r.
func (r rule) broken(s source) (wrong []string) {
	if !r.about(s) {
		return nil
	}
	for _, imported := range s.imports {
		bad := underAny(imported, r.only)
		if r.allow != nil {
			bad = !standard(imported) && !underAny(imported, r.allow)
		}
		if bad {
			wrong = append(wrong, fmt.Sprintf("%s imports %s: %s, because %s", s.file, imported, r.name, r.why))
		}
	}
	return wrong
}

// about leaves test files alone: they may import what they try.
func (r rule) about(s source) bool {
	return !s.test && underAny(s.file, r.in) && !underAny(s.file, r.not) && (r.files == "" || path.Base(s.file) != r.files)
}

func TestImportsFollowTheRooms(t *testing.T) {
	t.Parallel()
	all := sources(t)
	for _, r := range rules() {
		about, used := 0, r.only == nil
		for _, s := range all {
			require.Empty(t, r.broken(s))
			if r.about(s) {
				about++
			}
			used = used || slices.ContainsFunc(s.imports, func(i string) bool { return underAny(i, r.only) })
		}
		require.Positive(t, about, "the rule %q is about no file any more", r.name)
		require.True(t, used, "the rule %q forbids what nobody uses any more", r.name)
		for _, dir := range slices.Concat(r.in, r.not) {
			require.True(t, slices.ContainsFunc(all, func(s source) bool { return under(s.file, dir) }),
				"the rule %q names %s, which is gone", r.name, dir)
		}
	}
}

func TestAdaptersDoNotImportEachOther(t *testing.T) {
	t.Parallel()
	adapters := map[string]bool{}
	for _, s := range sources(t) {
		mine, ok := adapterOf(s.file)
		if !ok || s.test {
			continue
		}
		adapters[mine] = true
		for _, imported := range s.imports {
			other, ok := adapterOf(imported)
			require.False(t, ok && other != mine, "%s imports %s: adapters know nothing of each other", s.file, imported)
		}
	}
	require.Contains(t, adapters, "redisjobs")
	require.Contains(t, adapters, "memory")
	require.Greater(t, len(adapters), 5)
}

// adapterOf gives the family that a file or package belongs to.
func adapterOf(p string) (string, bool) {
	rest, ok := strings.CutPrefix(p, "adapters/")
	if !ok {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return name, true
}

// TestCoreReadsNoClock: what the time is comes from outside, so that a rule gives the same answer twice.
func TestCoreReadsNoClock(t *testing.T) {
	t.Parallel()
	looked := 0
	for _, s := range sources(t) {
		if !under(s.file, "core") {
			continue
		}
		looked++
		require.Empty(t, clockReads(s), "%s", s.file)
	}
	require.Positive(t, looked)
}

func clockReads(s source) (found []string) {
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" &&
			slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick"}, sel.Sel.Name) {
			found = append(found, "time."+sel.Sel.Name)
		}
		return true
	})
	return found
}

// TestNobodyElseSpellsAKey: a key that is written in a second place is a key without a workspace sooner or later.
func TestNobodyElseSpellsAKey(t *testing.T) {
	t.Parallel()
	inside := 0
	for _, s := range sources(t) {
		keys := keyLiterals(s)
		switch {
		case under(s.file, "adapters/redisjobs"):
			inside += len(keys)
		case s.test || under(s.file, "tests"):
		default:
			require.Empty(t, keys, "%s", s.file)
		}
	}
	require.Positive(t, inside, "the keys are spelled differently now: mend this test")
}

// TestNobodyElseLooksAtAFlag: a flag that is asked in a second place gives a phase that is not in the table.
func TestNobodyElseLooksAtAFlag(t *testing.T) {
	t.Parallel()
	inside := 0
	for _, s := range sources(t) {
		flags := flagReads(s)
		switch {
		case under(s.file, "core/migration"), s.file == "app/config.go":
			inside += len(flags)
		case s.test || under(s.file, "tests"):
		default:
			require.Empty(t, flags, "%s", s.file)
		}
	}
	require.Positive(t, inside, "the flags are spelled differently now: mend this test")
}

// flagReads gives the uses of migration.Flags and of a phase's method Flags. That of a cobra command is none.
func flagReads(s source) (found []string) {
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "Flags" {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			x = ast.NewIdent("…")
		}
		if !under(s.file, "app/relay") || x.Name != "cmd" {
			found = append(found, x.Name+".Flags")
		}
		return true
	})
	return found
}

// keyLiterals gives the texts in s that begin like a key. The scopes ai:execute and ai:jobs:read are the API's words.
func keyLiterals(s source) (found []string) {
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		lit, ok := n.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(lit.Value)
		if err != nil || text == "ai:jobs:read" {
			return true
		}
		for _, prefix := range []string{"ai:job", "ai:queue", "ai:idempotency", "ai:index"} {
			if strings.HasPrefix(text, prefix) {
				found = append(found, text)
			}
		}
		return true
	})
	return found
}

// TestSuitesAskThroughTheDocument: what a test asks of the API is held to the API's document by the client that asks.
func TestSuitesAskThroughTheDocument(t *testing.T) {
	t.Parallel()
	through := 0
	for _, s := range sources(t) {
		switch {
		case under(s.file, "tests/harness"), under(s.file, "tests/bench"), !s.test && !under(s.file, "tests"):
		case underAny(s.file, []string{"app", "adapters/httpapi", "tests"}):
			require.Empty(t, clients(s), "%s: use tests/harness/conformance", s.file)
			if slices.Contains(s.imports, "tests/harness/conformance") {
				through++
			}
		}
	}
	require.Greater(t, through, 5)
}

// clients gives what in s sends requests by itself.
func clients(s source) (found []string) {
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "http" && slices.Contains(
				[]string{"DefaultClient", "DefaultTransport", "Transport", "Get", "Head", "Post", "PostForm"}, sel.Sel.Name) {
				found = append(found, "http."+sel.Sel.Name)
			}
		}
		if literal, ok := n.(*ast.CompositeLit); ok {
			if sel, ok := literal.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Client" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "http" {
					found = append(found, "http.Client")
				}
			}
		}
		return true
	})
	return found
}

// TestRulesCatchWhatTheyForbid gives each rule a file that breaks it.
func TestRulesCatchWhatTheyForbid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, imported string }{
		"core is pure":            {"core/job/x.go", "github.com/redis/go-redis/v9"},
		"use cases see ports":     {"core/usecase/x.go", module + "adapters/memory"},
		"ports speak core":        {"ports/x.go", "go.uber.org/zap"},
		"fx stays at the edge":    {"adapters/apikey/x.go", "go.uber.org/fx"},
		"gin is one adapter's":    {"app/x.go", "github.com/gin-gonic/gin/binding"},
		"redis stays at its edge": {"adapters/httpapi/x.go", "github.com/redis/go-redis/v9"},
		"only app binds":          {"adapters/redisjobs/x.go", module + "app"},
		"tests are not shipped":   {"app/x.go", module + "tests/harness"},
	} {
		s, err := parse(token.NewFileSet(), c.file, []byte("package x\nimport _ "+strconv.Quote(c.imported)))
		require.NoError(t, err)
		i := slices.IndexFunc(rules(), func(r rule) bool { return r.name == name })
		require.GreaterOrEqual(t, i, 0, name)
		require.Len(t, rules()[i].broken(s), 1, name)
	}
	require.Len(t, rules(), 8, "a rule without an example here")

	s, err := parse(token.NewFileSet(), "core/job/x.go", []byte(`package x
		import "time"
		var a, b = time.Now(), "ai:jobs:"+"x"
		var c, d = migration.Flags{}, r.phase.Flags()`))
	require.NoError(t, err)
	require.Equal(t, []string{"time.Now"}, clockReads(s))
	require.Equal(t, []string{"ai:jobs:"}, keyLiterals(s))
	require.Equal(t, []string{"migration.Flags", "….Flags"}, flagReads(s))

	s, err = parse(token.NewFileSet(), "tests/isolation/x_test.go", []byte(`package x
		var a, b, c = http.DefaultClient, http.Get, &http.Client{Transport: &http.Transport{}}
		var d *http.Client`))
	require.NoError(t, err)
	require.Equal(t, []string{"http.DefaultClient", "http.Get", "http.Client", "http.Transport"}, clients(s))
}
