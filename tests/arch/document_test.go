package arch_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestArchitectureNamesWhatIsThere: a document that names tests, folders and files is checked against them.
func TestArchitectureNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join("..", "..", "ARCHITECTURE.md"))
	require.NoError(t, err)
	tests := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && strings.HasPrefix(f.Name.Name, "Test") {
				tests[f.Name.Name] = true
			}
		}
	}
	named := 0
	for _, quoted := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(string(content), -1) {
		name := quoted[1]
		room, _, _ := strings.Cut(name, "/")
		switch {
		case strings.HasPrefix(name, "Test"):
			require.True(t, tests[name], "ARCHITECTURE.md names %s, and there is no such test", name)
			named++
		case slices.Contains(append(rooms(), "configs"), room):
			_, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(name)))
			require.NoError(t, err, "ARCHITECTURE.md names %s", name)
			named++
		}
	}
	require.Greater(t, named, 30)

	for _, s := range sources(t) {
		if room := strings.Split(s.dir, "/"); len(room) > 1 {
			require.Contains(t, string(content), "`"+room[0]+"/"+room[1]+"`", "ARCHITECTURE.md says nothing about it")
		}
	}
}
