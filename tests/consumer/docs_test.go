package consumer_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi/client"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
)

// patience is for what a browser does at once, unless the machine is busy.
const patience = 60 * time.Second

// browser is a headless Chromium that reaches nothing but 127.0.0.1, and what its page did.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // the library's handle of the page

	mu    sync.Mutex
	asked []string // URLs
	told  []string // on the console, exceptions among it
}

func open(t *testing.T) *browser {
	t.Helper()
	allocator, end := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		// Names are not looked up, and addresses of elsewhere are left to a proxy that is not there.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
		chromedp.Flag("proxy-server", "http://127.0.0.1:9"), chromedp.Flag("proxy-bypass-list", "127.0.0.1"),
	)...)
	t.Cleanup(end)
	ctx, _ := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		ending, end := context.WithTimeout(ctx, patience)
		defer end()
		require.NoError(t, chromedp.Cancel(ending))
	})
	b := &browser{t: t, ctx: ctx}
	require.NoError(t, chromedp.Listen(ctx, b.note), "a Chromium must be in PATH: make chromium")
	return b
}

func (b *browser) note(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, event.Request.URL)
	case *runtime.EventConsoleAPICalled:
		b.told = append(b.told, string(event.Type))
	case *runtime.EventExceptionThrown:
		b.told = append(b.told, event.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		b.told = append(b.told, event.Entry.Text)
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, end := context.WithTimeout(b.ctx, patience)
	defer end()
	require.NoError(b.t, chromedp.Do(ctx, actions...))
}

func get[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, end := context.WithTimeout(b.ctx, patience)
	defer end()
	got, err := chromedp.Run(ctx, action)
	require.NoError(b.t, err)
	return got
}

// visible gives the text of each element of a kind, by its id, that is drawn and has a size.
func (b *browser) visible(selector string) map[string]string {
	b.t.Helper()
	return get(b, chromedp.Evaluate[map[string]string](`Object.fromEntries([...document.querySelectorAll("`+selector+`")]
		.filter((e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && e.getBoundingClientRect().height > 0)
		.map((e) => [e.id, e.innerText]))`))
}

// picture keeps what the whole page looks like, where RELAY_SCREENSHOTS says.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("RELAY_SCREENSHOTS")
	if dir == "" {
		dir = b.t.TempDir()
	}
	content := get(b, chromedp.FullScreenshot(100))
	require.Greater(b.t, len(content), 10_000)
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), content, 0o600))
}

// TestDocsInABrowser: the page draws the whole document, asks for nothing but the document, and can be read on any
// screen and without a mouse.
func TestDocsInABrowser(t *testing.T) {
	t.Parallel()
	relay := harness.Start(t, map[string]string{"RELAY_DEMO": "on"})
	document := documentOf(t, relay.URL)
	b := open(t)
	b.do(chromedp.Navigate(relay.URL+"/docs"), chromedp.WaitVisible(chromedp.ID("schemas")))

	operations := b.visible("main section[id^=op-]")
	for id, route := range map[string]string{
		"op-execute": "POST /ai/execute", "op-listJobs": "GET /ai/jobs", "op-getJob": "GET /ai/jobs/{job_id}",
	} {
		first, _, _ := strings.Cut(operations[id], "\n")
		require.Equal(t, route, strings.Join(strings.Fields(first), " "))
		require.Contains(t, operations[id], "Needs the scope")
	}
	require.Len(t, operations, len(document.Paths))
	codes := b.visible("main section[id^=code-]")
	require.Len(t, codes, len(document.Components.Schemas.ErrorCode.OneOf))
	for _, code := range document.Components.Schemas.ErrorCode.OneOf {
		want := strings.Fields(code.Const + " " + strings.ReplaceAll(code.Description, "`", ""))
		require.Equal(t, want, strings.Fields(codes["code-"+code.Const]), "its name, what it means, and what to do")
	}
	require.Contains(t, b.visible("main")["content"], "405 the route does not have this method")

	// Keys alone: past the contents, and into an answer.
	b.do(chromedp.KeyEvent(kb.Tab))
	require.Equal(t, "Skip the contents", get(b, chromedp.Evaluate[string]("document.activeElement.innerText")))
	b.do(chromedp.KeyEvent(kb.Enter))
	reached := map[string]bool{}
	for range 12 {
		b.do(chromedp.KeyEvent(kb.Tab))
		reached[get(b, chromedp.Evaluate[string]("document.activeElement.tagName"))] = true
		if reached["SUMMARY"] {
			break
		}
	}
	require.Equal(t, map[string]bool{"A": true, "SUMMARY": true}, reached)
	require.Zero(t, get(b, chromedp.Evaluate[int]("document.querySelectorAll('details[open]').length")))
	b.do(chromedp.KeyEvent(kb.Enter))
	require.Contains(t, get(b, chromedp.Evaluate[string]("document.querySelector('details[open]').innerText")), `"status": "enqueued"`)

	// A problem's type leads to what its code means.
	refused := refusal(t, relay.URL)
	b.do(chromedp.Navigate(relay.URL+refused.Type), chromedp.WaitVisible(chromedp.CSS(":target")))
	require.Contains(t, get(b, chromedp.Evaluate[string](`(() => {
		const e = document.querySelector(":target"), at = e.getBoundingClientRect();
		return at.top >= 0 && at.bottom <= innerHeight ? e.innerText : "it is not on the screen";
	})()`)), string(refused.Code))

	for name, width := range map[string]int64{"desktop": 1280, "phone": 360} {
		for _, scheme := range []string{"light", "dark"} {
			features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
			_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
			require.NoError(t, err)
			b.do(chromedp.EmulateViewport(width, 800), chromedp.Navigate(relay.URL+"/docs"), chromedp.WaitVisible(chromedp.ID("schemas")))
			require.LessOrEqual(t, get(b, chromedp.Evaluate[int64]("document.documentElement.scrollWidth")), width, "it is read downwards alone")
			b.picture(name + "-" + scheme)
		}
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.told)
	pages := map[string]bool{}
	for _, url := range b.asked {
		if !strings.HasPrefix(url, "data:") {
			page, _, _ := strings.Cut(url, "#")
			pages[page] = true
		}
	}
	require.Equal(t, map[string]bool{relay.URL + "/docs": true, relay.URL + "/openapi.json": true}, pages)
}

// TestTheBrowserReachesNothingElse: what the test above says about the page is not for want of trying.
func TestTheBrowserReachesNothingElse(t *testing.T) {
	t.Parallel()
	relay := harness.Start(t, map[string]string{"RELAY_DEMO": "on"})
	b := open(t)
	for _, url := range []string{"http://relay.invalid/", "http://192.0.2.1/", "http://[2001:db8::1]/"} {
		require.Error(t, chromedp.Do(b.ctx, chromedp.Navigate(url)), url)
	}
	b.do(chromedp.Navigate(relay.URL+"/docs"), chromedp.WaitVisible(chromedp.ID("schemas")))
	fetched := get(b, chromedp.Evaluate[string](`fetch("http://192.0.2.1/").then(() => "fetched", (e) => e.name)`, chromedp.EvalAwaitPromise))
	require.Equal(t, "TypeError", fetched)
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Contains(t, strings.Join(b.told, "\n"), "Content Security Policy", "the page may not even ask")
	require.Contains(t, strings.Join(b.asked, "\n"), "http://relay.invalid/", "requests are seen")
}

// document is what the page has to show.
type document struct {
	Paths      map[string]any `json:"paths"`
	Components struct {
		Schemas struct {
			ErrorCode struct {
				OneOf []struct {
					Const       string `json:"const"`
					Description string `json:"description"`
				} `json:"oneOf"`
			} `json:"ErrorCode"`
		} `json:"schemas"`
	} `json:"components"`
}

func documentOf(t *testing.T, url string) (d document) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/openapi.json", http.NoBody)
	require.NoError(t, err)
	resp, err := conformance.Client(t).Do(r)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	content, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &d))
	require.Greater(t, len(d.Components.Schemas.ErrorCode.OneOf), 15)
	require.Len(t, d.Paths, 7)
	return d
}

// refusal is one that the service gives.
func refusal(t *testing.T, url string) *client.Problem {
	t.Helper()
	relay, err := client.NewClientWithResponses(url, client.WithHTTPClient(conformance.Client(t)))
	require.NoError(t, err)
	answer, err := relay.ListJobsWithResponse(t.Context(), nil)
	require.NoError(t, err)
	require.NotNil(t, answer.ApplicationProblemJSON401)
	return client.ProblemOf(answer)
}
