package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"go.uber.org/zap"
)

// checkTimeout bounds each health check.
const checkTimeout = time.Second

// serveLivez tells that the process answers. It asks nothing else: a broken dependency is no reason for a restart.
func (a *API) serveLivez(c *gin.Context) {
	if err := checkNoParameters(c.Request); err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, contentJSON, Liveness{Status: LivenessStatusOk})
}

// serveReadyz asks each thing that requests depend on, all at once. Reasons go to the log; callers get names.
func (a *API) serveReadyz(c *gin.Context) {
	if err := checkNoParameters(c.Request); err != nil {
		a.refuse(c, err)
		return
	}
	ready := Readiness{Status: ReadinessStatusReady, Checks: a.runChecks(c.Request.Context())}
	for _, check := range ready.Checks {
		if !check.Ok {
			ready.Status = ReadinessStatusUnavailable
		}
	}
	if a.draining.Load() {
		ready.Status = ReadinessStatusDraining
	}
	status := http.StatusOK
	if ready.Status != ReadinessStatusReady {
		status = http.StatusServiceUnavailable
	}
	a.answer(c, status, contentJSON, ready)
}

func (a *API) runChecks(ctx context.Context) []ReadinessCheck {
	results := make([]ReadinessCheck, len(a.checks))
	var running sync.WaitGroup
	for i, check := range a.checks {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			err := check.Check(ctx)
			results[i] = ReadinessCheck{Name: check.Name(), Ok: err == nil}
			if err != nil {
				a.log.Warn("not ready", zap.String("check", check.Name()), zap.String("reason", err.Error()))
			}
		})
	}
	running.Wait()
	return results
}
