package httpapi

import (
	"net/http"
	"net/http/pprof" // registers on the default mux too, which nothing serves

	"github.com/gin-gonic/gin"
)

// NewAdmin serves what operators need and consumers must not read: metrics, whose labels name workspaces, profiles,
// and the health of api. It belongs on a listener of its own. Of net/http/pprof it leaves out the command line, which
// may hold secrets.
func NewAdmin(metrics http.Handler, api *API) http.Handler {
	routes := []route{
		{Route{http.MethodGet, "/metrics"}, gin.WrapH(metrics)},
		{Route{http.MethodGet, "/livez"}, api.serveLivez},
		{Route{http.MethodGet, "/readyz"}, api.serveReadyz},
		{Route{http.MethodGet, "/debug/pprof/"}, gin.WrapF(pprof.Index)},
		{Route{http.MethodGet, "/debug/pprof/profile"}, gin.WrapF(pprof.Profile)},
		{Route{http.MethodGet, "/debug/pprof/symbol"}, gin.WrapF(pprof.Symbol)},
		{Route{http.MethodPost, "/debug/pprof/symbol"}, gin.WrapF(pprof.Symbol)},
		{Route{http.MethodGet, "/debug/pprof/trace"}, gin.WrapF(pprof.Trace)},
		{Route{http.MethodGet, "/debug/pprof/{profile}"}, gin.WrapF(pprof.Index)},
	}
	handler, _ := api.engine(routes, nil)
	return handler
}
