package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/gin-gonic/gin"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/usecase"
)

const contentJSON = "application/json"

func (a *API) serveExecute(c *gin.Context) {
	credential, _ := bearer(c.Request.Header)
	made, err := a.execute.Do(c.Request.Context(), credential, func() (usecase.ExecuteInput, error) {
		return readExecute(c.Writer, c.Request)
	})
	if err != nil {
		a.refuseFor(c, access.ScopeExecute, err)
		return
	}
	c.Header("Location", "/ai/jobs/"+url.PathEscape(made.ID.String()))
	if made.Replayed {
		c.Header("Idempotency-Replayed", "true")
	}
	a.answer(c, http.StatusOK, contentJSON,
		ExecuteResponse{JobID: made.ID.String(), Status: ExecuteResponseStatusEnqueued})
}

func (a *API) serveGetJob(c *gin.Context) {
	credential, _ := bearer(c.Request.Header)
	found, err := a.getJob.Do(c.Request.Context(), credential, func() (usecase.GetJobInput, error) {
		return readGetJob(c.Request, c.Param("job_id"))
	})
	if err != nil {
		a.refuseFor(c, access.ScopeJobsRead, err)
		return
	}
	a.answer(c, http.StatusOK, contentJSON, wireJob(&found))
}

func (a *API) serveListJobs(c *gin.Context) {
	credential, _ := bearer(c.Request.Header)
	page, err := a.listJobs.Do(c.Request.Context(), credential, func() (usecase.ListJobsInput, error) {
		return readListJobs(c.Request)
	})
	if err != nil {
		a.refuseFor(c, access.ScopeJobsRead, err)
		return
	}
	a.answer(c, http.StatusOK, contentJSON, wirePage(page))
}

// answer writes v as JSON, whole or not at all. What cannot be written any more concerns nobody but the log: the
// caller went away.
func (a *API) answer(c *gin.Context, status int, contentType string, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		a.refuse(c, err)
		return
	}
	a.write(c, status, contentType, body.Bytes())
}

func (a *API) write(c *gin.Context, status int, contentType string, body []byte) {
	c.Header("Content-Type", contentType)
	c.Header("Content-Length", strconv.Itoa(len(body)))
	c.Status(status)
	if _, err := c.Writer.Write(body); err != nil {
		a.log.Debug("answer not delivered", zap.String("request_id", exchangeOf(c.Request.Context()).requestID),
			zap.String("reason", err.Error()))
	}
}
