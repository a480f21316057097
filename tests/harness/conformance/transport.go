package conformance

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
)

// Client sends requests that are held to the document, and follows no redirects. Its connections end with the test.
func Client(tb testing.TB) *http.Client {
	tb.Helper()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 128}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     Transport(tb, transport),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Transport passes requests on to next. The test fails where an exchange is not as the document has it; whoever asked
// gets the answer all the same. Requests that are not answered to the end are not looked at.
func Transport(tb testing.TB, next http.RoundTripper) http.RoundTripper {
	tb.Helper()
	return transport{tb: tb, next: next}
}

type transport struct {
	tb   testing.TB
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	x := Exchange{Request: r}
	if r.Body != nil && r.Body != http.NoBody {
		if r.GetBody == nil {
			return nil, errors.New("a body that can be read once cannot be held to the document")
		}
		again, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		if x.Sent, err = io.ReadAll(again); err != nil {
			return nil, err
		}
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	x.Status, x.Header = resp.StatusCode, resp.Header
	var broken error
	x.Body, broken = io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	if broken != nil {
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(x.Body), failing{broken}))
		return resp, nil
	}
	resp.Body = reread(x.Body)
	if err := x.Check(); err != nil {
		t.tb.Errorf("%v", err)
	}
	return resp, nil
}

func reread(content []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(content)) }

// failing is the end of a body that did not arrive whole.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
