package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"

	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/core/job"
	"github.com/relay-jobs/relay/core/usecase"
	"github.com/relay-jobs/relay/core/workspace"
)

// refusals collects what is wrong with an input. One reason alone keeps its code; several share the general one.
type refusals struct {
	general    fault.Code
	code       fault.Code
	violations []fault.Violation
}

func (r *refusals) add(code fault.Code, v fault.Violation) {
	if len(r.violations) == 0 {
		r.code = code
	} else if r.code != code {
		r.code = r.general
	}
	if len(r.violations) < maxErrors {
		r.violations = append(r.violations, v)
	}
}

func (r *refusals) err() error {
	if len(r.violations) == 0 {
		return nil
	}
	msg := map[fault.Code]string{
		codeInvalidBody:            "Invalid body",
		fault.CodeInvalidParameter: "Invalid parameter",
		fault.CodeInvalidCursor:    "Invalid cursor",
		fault.CodeInvalidWorkspace: "Invalid workspace_id format",
	}[r.code]
	return fault.BadInput(r.code, msg, r.violations...)
}

// maxNameEcho bounds the name of an unknown parameter in an answer, in bytes.
const maxNameEcho = 64

// parameters are the query parameters of one request, each given at most once.
type parameters struct {
	refusals
	values url.Values
}

// query reads the parameters, of which the route knows names.
func query(r *http.Request, names ...string) *parameters {
	p := &parameters{refusals: refusals{general: fault.CodeInvalidParameter}}
	if r.URL.RawQuery == "" {
		return p
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.refuse("query", "is not well-formed")
		return p
	}
	given := make([]string, 0, len(values))
	for name := range values {
		given = append(given, name)
	}
	slices.Sort(given)
	for _, name := range given {
		switch {
		case !slices.Contains(names, name):
			p.refuse(name[:min(len(name), maxNameEcho)], "is not a parameter of this route")
		case len(values[name]) > 1:
			p.refuse(name, "is given more than once")
		}
	}
	p.values = values
	return p
}

func (p *parameters) refuse(name, detail string) {
	if name == "" {
		name = "query" // a parameter without a name
	}
	p.add(fault.CodeInvalidParameter, fault.Violation{Parameter: name, Detail: detail})
}

// get gives a parameter that was given once; one that was given more often is refused already.
func (p *parameters) get(name string) (value string, given bool) {
	if v := p.values[name]; len(v) == 1 {
		return v[0], true
	}
	return "", false
}

// workspaceRule is the detail of a malformed workspace id.
const workspaceRule = "does not match ^[a-z0-9][a-z0-9_-]{0,31}$"

// workspace gives the workspace that the client named, nil for none.
func (p *parameters) workspace() *workspace.ID {
	value, given := p.get("workspace_id")
	if !given {
		return nil
	}
	id, err := workspace.Parse(value)
	if err != nil {
		p.add(fault.CodeInvalidWorkspace, fault.Violation{Parameter: "workspace_id", Detail: workspaceRule})
		return nil
	}
	return &id
}

// checkNoParameters refuses a query on a route that has none.
func checkNoParameters(r *http.Request) error { return query(r).err() }

func readGetJob(r *http.Request, rawID string) (usecase.GetJobInput, error) {
	p := query(r, "workspace_id")
	in := usecase.GetJobInput{Given: p.workspace()}
	if err := p.err(); err != nil {
		return usecase.GetJobInput{}, err
	}
	// The router decodes nothing, so that this is the id's only decoding. What is no id stays the zero ID.
	if text, err := url.PathUnescape(rawID); err == nil {
		in.ID, _ = job.ParseID(text)
	}
	return in, nil
}

var limitForm = regexp.MustCompile(`^[1-9][0-9]{0,3}$`)

func readListJobs(r *http.Request) (usecase.ListJobsInput, error) {
	p := query(r, "workspace_id", "status", "limit", "cursor")
	in := usecase.ListJobsInput{Given: p.workspace(), Query: job.Query{Limit: job.DefaultLimit}}
	if value, given := p.get("status"); given {
		in.Query.Status = job.Status(value)
		if !in.Query.Status.Known() {
			p.refuse("status", "is none of pending, running, completed, failed")
		}
	}
	if value, given := p.get("limit"); given {
		n, err := strconv.Atoi(value)
		if err != nil || !limitForm.MatchString(value) || n > job.MaxLimit {
			p.refuse("limit", "is a number from 1 to "+strconv.Itoa(job.MaxLimit))
		}
		in.Query.Limit = n
	}
	if value, given := p.get("cursor"); given {
		cursor, err := job.ParseCursor(value)
		var refused *fault.Error
		switch {
		case errors.As(err, &refused):
			for _, v := range refused.Violations {
				p.add(refused.Code, v)
			}
		case err != nil:
			return usecase.ListJobsInput{}, err
		}
		in.Query.Cursor = cursor
	}
	return in, p.err()
}
