package consumer_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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

// browser is a page in a headless Chromium that reaches nothing but 127.0.0.1, and what the page did.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // the library's handle of the page

	mu    sync.Mutex
	asked []string // URLs
	told  []string // on the console, exceptions among it
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	allocator, end := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		// Names are not looked up, and addresses of elsewhere are left to a proxy that is not there.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
		chromedp.Flag("proxy-server", "http://127.0.0.1:9"), chromedp.Flag("proxy-bypass-list", "127.0.0.1"),
		chromedp.WSURLReadTimeout(patience),
	)...)
	t.Cleanup(end)
	return (&browser{t: t, ctx: allocator}).tab()
}

// tab opens a page, the first one with its browser.
func (b *browser) tab() *browser {
	b.t.Helper()
	ctx, _ := chromedp.NewContext(b.ctx) // ended by Cancel
	b.t.Cleanup(func() {
		ending, end := context.WithTimeout(ctx, patience)
		defer end()
		require.NoError(b.t, chromedp.Cancel(ending))
	})
	page := &browser{t: b.t, ctx: ctx}
	require.NoError(b.t, chromedp.Listen(ctx, page.note), "a Chromium must be in PATH: make chromium")
	return page
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

// did gives the addresses that were asked for, each once and without what is in the page, and what was told.
func (b *browser) did() (asked, told []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.asked {
		if address, _, _ := strings.Cut(url, "#"); !strings.HasPrefix(url, "data:") && !slices.Contains(asked, address) {
			asked = append(asked, address)
		}
	}
	return asked, slices.Clone(b.told)
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

// picture keeps what the page looks like: the whole of it where RELAY_SCREENSHOTS says, else its first screen while the
// test runs.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir, shoot := os.Getenv("RELAY_SCREENSHOTS"), chromedp.FullScreenshot(100)
	if dir == "" {
		dir, shoot = b.t.TempDir(), chromedp.CaptureScreenshot()
	}
	content := get(b, shoot)
	require.Greater(b.t, len(content), 10_000)
	require.NoError(b.t, os.WriteFile(filepath.Join(dir, name+".png"), content, 0o600))
}

// TestDocsInABrowser: the page draws the whole document, asks for nothing but the document, and can be read on any
// screen and without a mouse.
func TestDocsInABrowser(t *testing.T) {
	t.Parallel()
	relay := harness.Start(t, map[string]string{"RELAY_DEMO": "on"})
	document := documentOf(t, relay.URL)
	b := startBrowser(t)
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

	asked, told := b.did()
	require.Empty(t, told)
	require.Equal(t, []string{relay.URL + "/docs", relay.URL + "/openapi.json"}, asked)
	reachesNothingElse(t, b.tab(), relay.URL)
}

// reachesNothingElse: what is said of the page is not for want of trying.
func reachesNothingElse(t *testing.T, b *browser, url string) {
	t.Helper()
	for _, elsewhere := range []string{"http://relay.invalid/", "http://192.0.2.1/", "http://[2001:db8::1]/"} {
		require.Error(t, chromedp.Do(b.ctx, chromedp.Navigate(elsewhere)), elsewhere)
	}
	b.do(chromedp.Navigate(url+"/docs"), chromedp.WaitVisible(chromedp.ID("schemas")))
	fetched := get(b, chromedp.Evaluate[string](`fetch("http://192.0.2.1/").then(() => "fetched", (e) => e.name)`, chromedp.EvalAwaitPromise))
	require.Equal(t, "TypeError", fetched)
	asked, told := b.did()
	require.Contains(t, asked, "http://relay.invalid/", "requests are seen")
	require.Contains(t, strings.Join(told, "\n"), "Content Security Policy", "the page may not even ask")
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
