package httpapi

import (
	"time"

	"github.com/relay-jobs/relay/core/job"
)

// wireJob is the one mapping from the core's job to the document's. The result refers to j.
func wireJob(j *job.Job) Job {
	w := Job{
		JobID:          j.ID.String(),
		WorkspaceID:    j.Workspace.String(),
		Status:         string(j.Status),
		ActionProvider: present(&j.Provider),
		ActionName:     present(&j.Name),
		Params:         j.Params,
		Result:         j.Result,
		Error:          present(&j.Error),
		ActorID:        present(&j.Actor),
		EnqueuedAt:     wireTime(j.EnqueuedAt),
		StartedAt:      wireTime(j.StartedAt),
		FinishedAt:     wireTime(j.FinishedAt),
	}
	if d, ok := j.Duration(); ok {
		ms := d.Milliseconds()
		w.DurationMs = &ms
	}
	return w
}

// wirePage maps a page. The result refers to p.
func wirePage(p job.Page) JobPage {
	jobs := make([]Job, len(p.Jobs))
	for i := range p.Jobs {
		jobs[i] = wireJob(&p.Jobs[i])
	}
	return JobPage{Jobs: jobs, Count: len(jobs), NextCursor: p.Next}
}

// present gives nil for an empty text, which is absent.
func present(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}

const wireTimeLayout = "2006-01-02T15:04:05.000000Z"

// wireTime gives nil for the zero time and for one that four digits cannot date.
func wireTime(t time.Time) *Time {
	if utc := t.UTC(); !t.IsZero() && utc.Year() >= 0 && utc.Year() <= 9999 {
		text := utc.Format(wireTimeLayout)
		return &text
	}
	return nil
}
