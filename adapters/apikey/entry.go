package apikey

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/workspace"
)

const (
	// tokenPrefix lets a person, a secret scanner and this package tell a Relay token from anything else.
	tokenPrefix = "relay_sk_"
	// tokenSecretBytes is what makes a token unguessable.
	tokenSecretBytes = 32
	// maxTokenBytes bounds the work that a bogus credential causes. Tokens of Generate have 52 bytes.
	maxTokenBytes = 256
)

// Entry is one key as the file holds it. It holds no secret: the token cannot be found from its hash.
type Entry struct {
	// ID names the key for people, in the file and in logs.
	ID string `yaml:"id"`
	// SHA256 is the hash of the whole token, 64 hexadecimal digits.
	SHA256 string `yaml:"sha256"`
	// WorkspaceID may be missing. Such a key authenticates, and every request with it is refused as forbidden.
	WorkspaceID string `yaml:"workspace_id,omitempty"`
	// ActorID is who the jobs are attributed to.
	ActorID string `yaml:"actor_id"`
	// Scopes are what the key permits; none permits nothing.
	Scopes []string `yaml:"scopes"`
	// ExpiresAt is when the key stops to work, RFC 3339; empty is never. A file says that by leaving it out.
	ExpiresAt string `yaml:"expires_at,omitempty"`
	// Disabled revokes the key and keeps its entry.
	Disabled bool `yaml:"disabled,omitempty"`
}

// Generate makes a token and the entry that admits it. The entry has an id and the hash; workspace, actor and scopes
// are for the caller to fill in. The token is not kept anywhere.
func Generate() (token string, entry Entry, err error) {
	var secret [tokenSecretBytes]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return "", Entry{}, fmt.Errorf("no randomness for a token: %w", err)
	}
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	sum := sha256.Sum256([]byte(token))
	digest := hex.EncodeToString(sum[:])
	return token, Entry{ID: "key-" + digest[:8], SHA256: digest}, nil
}

// YAML renders the entry as an item to put below "keys:". An entry that the file's reader would refuse is an error.
func (e Entry) YAML() (string, error) {
	if _, _, err := e.parse(); err != nil {
		return "", err
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(keyFile{Keys: []Entry{e}}); err != nil {
		return "", fmt.Errorf("rendering the entry: %w", err)
	}
	return strings.TrimPrefix(b.String(), "keys:\n"), nil
}

// digest is the SHA-256 of a token.
type digest [sha256.Size]byte

// key is an entry that was checked.
type key struct {
	id        string
	principal access.Principal
	expires   time.Time // zero is never
	disabled  bool
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// parse checks the entry. Its errors name the field and never the value: somebody may have put a token there.
func (e Entry) parse() (digest, key, error) {
	if !idPattern.MatchString(e.ID) || strings.HasPrefix(e.ID, tokenPrefix) {
		return digest{}, key{}, errors.New("id must be 1 to 64 letters, digits, dots, dashes or underscores, and no token")
	}
	raw, err := hex.DecodeString(e.SHA256)
	if err != nil || len(raw) != sha256.Size {
		return digest{}, key{}, errors.New("sha256 must be 64 hexadecimal digits, the hash of the token and not the token")
	}
	if e.WorkspaceID != "" {
		if _, err := workspace.Parse(e.WorkspaceID); err != nil {
			return digest{}, key{}, errors.New("workspace_id is malformed")
		}
	}
	if e.ActorID == "" {
		return digest{}, key{}, errors.New("actor_id is missing")
	}
	k := key{
		id:        e.ID,
		principal: access.Principal{Workspace: e.WorkspaceID, Actor: e.ActorID},
		disabled:  e.Disabled,
	}
	for _, s := range e.Scopes {
		if s == "" || strings.ContainsFunc(s, notScope) {
			return digest{}, key{}, errors.New("scopes must be a list of words without spaces")
		}
		k.principal.Scopes = append(k.principal.Scopes, access.Scope(s))
	}
	if e.ExpiresAt != "" {
		if k.expires, err = time.Parse(time.RFC3339, e.ExpiresAt); err != nil {
			return digest{}, key{}, errors.New("expires_at must be a time like 2027-01-31T00:00:00Z")
		}
	}
	return digest(raw), k, nil
}

// notScope tells whether RFC 6749 forbids r in a scope.
func notScope(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }

// keyFile is the file's whole content.
type keyFile struct {
	Keys []Entry `yaml:"keys"`
}

// keySet finds a key by its token's digest. A map's lookup takes time that depends on the digest's bits; that tells an
// attacker nothing, since nobody can choose tokens by their SHA-256, and a digest does not help to find its token.
type keySet map[digest]key

// parseFile reads the YAML strictly. Its errors name lines and ids, never content. A file without a list is refused,
// so that one caught while it is written does not revoke everything; "keys: []" says so on purpose.
func parseFile(content []byte) (keySet, error) {
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	var f keyFile
	if err := dec.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty")
		}
		return nil, whatYAMLSaid(err)
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(content, &tree); err != nil { // gives the first document
		return nil, whatYAMLSaid(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file holds more than one YAML document")
	}
	if f.Keys == nil {
		return nil, errors.New("the file has no list named keys")
	}
	if err := refuseBlank(&tree); err != nil {
		return nil, err
	}
	return newKeySet(f.Keys)
}

// refuseBlank refuses a field that is there and says nothing. It would pass for a missing one, and a key whose
// expires_at or disabled somebody forgot to fill in would be good for ever. The tree is of a file whose fields are all
// known ones, so that errors may name them.
func refuseBlank(n *yaml.Node) error {
	for i, child := range n.Content {
		value := child
		if child.Kind == yaml.AliasNode {
			value = child.Alias
		}
		if n.Kind == yaml.MappingNode && i%2 == 1 && value.Kind == yaml.ScalarNode &&
			(value.Value == "" || value.ShortTag() == "!!null") {
			return fmt.Errorf("%s has no value at line %d", n.Content[i-1].Value, child.Line)
		}
		if err := refuseBlank(child); err != nil {
			return err
		}
	}
	return nil
}

func newKeySet(entries []Entry) (keySet, error) {
	set := make(keySet, len(entries))
	ids := make(map[string]int, len(entries))
	for i, e := range entries {
		d, k, err := e.parse()
		if err != nil {
			return nil, fmt.Errorf("keys[%d]%s: %w", i, named(e.ID), err)
		}
		if first, ok := ids[k.id]; ok {
			return nil, fmt.Errorf("keys[%d]%s: keys[%d] has the same id", i, named(k.id), first)
		}
		if other, ok := set[d]; ok {
			return nil, fmt.Errorf("keys[%d]%s: the key%s has the same sha256", i, named(k.id), named(other.id))
		}
		ids[k.id], set[d] = i, k
	}
	return set, nil
}

// named gives an id for an error where it surely is one.
func named(id string) string {
	if !idPattern.MatchString(id) || strings.HasPrefix(id, tokenPrefix) {
		return ""
	}
	return fmt.Sprintf(" (id %q)", id)
}

var linePattern = regexp.MustCompile(`\bline \d+`)

// whatYAMLSaid keeps the kind and the line of the library's complaint, whose text repeats what the file holds.
func whatYAMLSaid(err error) error {
	text, what := err.Error(), "not valid YAML"
	var te *yaml.TypeError
	if errors.As(err, &te) && len(te.Errors) > 0 {
		text, what = te.Errors[0], "a value of the wrong type"
		switch {
		case strings.Contains(text, "not found in type"):
			what = "an unknown field"
		case strings.Contains(text, "already"):
			what = "a field given twice"
		}
	}
	if at := linePattern.FindString(text); at != "" {
		what += " at " + at
	}
	return errors.New(what)
}
