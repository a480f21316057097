// Package httpapi is the HTTP edge. It translates requests into the use cases' inputs and their outcomes into answers
// as openapi.yaml describes them, and decides nothing else: who may do what is the core's.
//
// Whatever a request brings beyond its credential is read by the input function that each use case calls only once
// the credential has passed, so that a refused caller's body is not even received.
//
// Three things are answered by net/http before any handler sees them, without X-Request-Id: in plain text, a request
// that is no HTTP (a malformed percent-encoding in its path is one) with 400 and headers over the limit with 431; and,
// without a body, an Expect header that is not 100-continue with 417.
package httpapi

import (
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/ports"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml openapi.yaml

// unmatched is the route label of requests that match no route: what was asked for is untrusted text.
const unmatched = "unmatched"

// RequestObserver is told about each request that was answered. Both labels come from closed sets: route is a template
// of the document or "unmatched", method one of HTTP's or "other". TraceID is empty where no trace of it is kept.
type RequestObserver interface {
	RequestServed(route, method string, status int, d time.Duration, traceID string)
}

// Config is what an API needs. All but Checks and Tracer are required.
type Config struct {
	Execute  usecase.Execute
	GetJob   usecase.GetJob
	ListJobs usecase.ListJobs
	Checks   []ports.HealthCheck // what /readyz asks
	Requests RequestObserver
	Tracer   trace.Tracer // nil for no traces
	Log      *zap.Logger
}

// API serves the consumers' routes. It may be used concurrently.
type API struct {
	execute  usecase.Execute
	getJob   usecase.GetJob
	listJobs usecase.ListJobs
	checks   []ports.HealthCheck
	requests RequestObserver
	log      *zap.Logger

	document document
	draining atomic.Bool
	routes   []Route
	handler  http.Handler
}

// Route is one method of one path template, as the document spells it.
type Route struct{ Method, Path string }

// route is a Route with its handler; every GET is a HEAD as well.
type route struct {
	Route
	handle gin.HandlerFunc
}

// New builds the API. The error is a defect of the embedded document.
func New(cfg Config) (*API, error) {
	doc, err := loadDocument()
	if err != nil {
		return nil, err
	}
	a := &API{
		execute: cfg.Execute, getJob: cfg.GetJob, listJobs: cfg.ListJobs,
		checks: cfg.Checks, requests: cfg.Requests, log: cfg.Log, document: doc,
	}
	a.execute.Auth = witness{a.execute.Auth}
	a.getJob.Auth = witness{a.getJob.Auth}
	a.listJobs.Auth = witness{a.listJobs.Auth}
	a.handler, a.routes = a.engine([]route{
		{Route{http.MethodPost, "/ai/execute"}, a.serveExecute},
		{Route{http.MethodGet, "/ai/jobs"}, a.serveListJobs},
		{Route{http.MethodGet, "/ai/jobs/{job_id}"}, a.serveGetJob},
		{Route{http.MethodGet, "/livez"}, a.serveLivez},
		{Route{http.MethodGet, "/readyz"}, a.serveReadyz},
		{Route{http.MethodGet, "/openapi.json"}, a.serveOpenAPI},
		{Route{http.MethodGet, "/docs"}, a.serveDocs},
	}, cfg.Tracer)
	return a, nil
}

// Handler serves the consumers' listener.
func (a *API) Handler() http.Handler { return a.handler }

// Routes lists every registered method and path, those of HEAD included.
func (a *API) Routes() []Route { return a.routes }

// Drain makes /readyz answer 503 from now on, so that no new requests are sent here; those that come are still served.
func (a *API) Drain() { a.draining.Store(true) }

// engine builds a gin engine for routes, with everything that all of them share. A nil tracer traces nothing.
func (a *API) engine(routes []route, tracer trace.Tracer) (http.Handler, []Route) {
	gin.SetMode(gin.ReleaseMode) // gin's only switch, for the whole process: else it prints to standard output
	engine := gin.New()
	engine.RedirectTrailingSlash = false
	engine.RedirectFixedPath = false
	engine.HandleMethodNotAllowed = true
	engine.ForwardedByClientIP = false
	// Paths are matched as they were sent, so that %2F stays inside its segment. Values stay encoded: gin would decode
	// them by the rules of a query, where + is a space.
	engine.UseEscapedPath = true
	engine.UnescapePathValues = false

	templates := make(map[string]string, len(routes))
	var registered []Route
	engine.Use(a.exchanged(templates, tracer), a.recovered)
	engine.NoRoute(func(c *gin.Context) { a.refuse(c, errRouteNotFound()) })
	engine.NoMethod(a.serveOtherMethod)
	for _, r := range routes {
		path := strings.NewReplacer("{", ":", "}", "").Replace(r.Path)
		templates[path] = r.Path
		methods := []string{r.Method}
		if r.Method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, method := range methods {
			engine.Handle(method, path, r.handle)
			registered = append(registered, Route{method, r.Path})
		}
	}
	return engine, registered
}

// serveOtherMethod answers a method that the route does not have; gin has set Allow. OPTIONS asks for just that.
func (a *API) serveOtherMethod(c *gin.Context) {
	if c.Request.Method == http.MethodOptions {
		c.Status(http.StatusNoContent)
		c.Writer.WriteHeaderNow()
		return
	}
	a.refuse(c, errMethodNotAllowed())
}
