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

	"github.com/gin-gonic/gin"
	"go.yaml.in/yaml/v3"
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

func loadDocument() (document, error) {
	var tree map[string]any
	if err := yaml.Unmarshal(openapiYAML, &tree); err != nil {
		return document{}, fmt.Errorf("openapi.yaml: %w", err)
	}
	openapi, err := json.Marshal(tree)
	if err != nil {
		return document{}, fmt.Errorf("openapi.yaml: %w", err)
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
		policy: "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
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
