package httpapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/goccy/go-yaml"
)

//go:embed openapi.yaml
var openapiYAML []byte

//go:embed docs.html
var docsHTML []byte

// document is what the binary serves about itself.
type document struct {
	openapi []byte // JSON
	policy  string // Content-Security-Policy of the page
}

// OpenAPI gives the document as JSON, its parts in the order in which they are written. It must not be changed.
func OpenAPI() ([]byte, error) { return openAPI() }

// openAPI reads the YAML once in a process: it is the longest part of making an API.
//
//nolint:gochecknoglobals // a constant that has to be computed
var openAPI = sync.OnceValues(func() ([]byte, error) {
	spaced, err := yaml.YAMLToJSON(openapiYAML)
	if err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	var dense bytes.Buffer
	if err := json.Compact(&dense, spaced); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	return dense.Bytes(), nil
})

func loadDocument() (document, error) {
	openapi, err := OpenAPI()
	if err != nil {
		return document{}, err
	}
	style, err := sourceHash("style")
	if err != nil {
		return document{}, err
	}
	script, err := sourceHash("script")
	if err != nil {
		return document{}, err
	}
	return document{
		openapi: openapi,
		policy: "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
			"style-src '" + style + "'; script-src '" + script + "'",
	}, nil
}

// sourceHash gives the policy's source for the page's one inline element of a name: its own text and no other.
func sourceHash(element string) (string, error) {
	_, rest, opened := bytes.Cut(docsHTML, []byte("<"+element+">"))
	text, _, closed := bytes.Cut(rest, []byte("</"+element+">"))
	if !opened || !closed {
		return "", errors.New("docs.html has no " + element)
	}
	sum := sha256.Sum256(text)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:]), nil
}

func (a *API) serveOpenAPI(c *gin.Context) {
	if err := checkNoParameters(c.Request); err != nil {
		a.refuse(c, err)
		return
	}
	a.write(c, http.StatusOK, contentJSON, a.document.openapi)
}

func (a *API) serveDocs(c *gin.Context) {
	if err := checkNoParameters(c.Request); err != nil {
		a.refuse(c, err)
		return
	}
	c.Header("Content-Security-Policy", a.document.policy)
	c.Header("X-Content-Type-Options", "nosniff")
	a.write(c, http.StatusOK, "text/html; charset=utf-8", docsHTML)
}
