package consumer_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi/client"
	"github.com/relay-jobs/relay/tests/harness"
	"github.com/relay-jobs/relay/tests/harness/conformance"
	"github.com/relay-jobs/relay/tests/harness/redisserver"
)

// as gives a client with a workspace's credential.
func as(t *testing.T, url, token string) *client.ClientWithResponses {
	t.Helper()
	relay, err := client.NewClientWithResponses(url, client.WithToken(token), client.WithHTTPClient(conformance.Client(t)))
	require.NoError(t, err)
	return relay
}

// TestClientFollowsAJob is the quickstart, in Go: execute, follow the job, list it, repeat, and meet the refusals.
func TestClientFollowsAJob(t *testing.T) {
	t.Parallel()
	redis, keys := redisserver.Start(t), harness.NewKeys(t)
	mine, theirs := keys.Token(t, "acme"), keys.Token(t, "globex")
	server := harness.Start(t, map[string]string{"REDIS_URL": redis.URL(), "RELAY_API_KEYS_FILE": keys.Path})
	acme, globex := as(t, server.URL, mine), as(t, server.URL, theirs)
	ctx, key, trace := t.Context(), "order-1815", "r-1"
	request := client.ExecuteRequest{
		ActionProvider: "google", ActionName: "gmail.send",
		Params: map[string]any{"to": "ada@example.com", "big": uint64(1<<63 + 1)}, ClientRequestID: &key,
	}

	ready, err := acme.ReadyzWithResponse(ctx, nil)
	require.NoError(t, err)
	require.Equal(t, client.ReadinessStatusReady, ready.JSON200.Status)

	executed, err := acme.ExecuteWithResponse(ctx, &client.ExecuteParams{XRequestID: &trace}, request)
	require.NoError(t, err)
	require.NotNil(t, executed.JSON200, "%s", executed.Body)
	id := executed.JSON200.JobID
	require.Equal(t, client.ExecuteResponseStatusEnqueued, executed.JSON200.Status)
	require.Equal(t, "/ai/jobs/"+id, executed.Headers200.Location)
	require.Equal(t, trace, executed.Headers200.XRequestID)
	require.Nil(t, executed.Headers200.IdempotencyReplayed)
	require.Nil(t, client.ProblemOf(executed))

	job, err := acme.GetJobWithResponse(ctx, strings.TrimPrefix(executed.Headers200.Location, "/ai/jobs/"), nil)
	require.NoError(t, err)
	require.NotNil(t, job.JSON200, "%s", job.Body)
	require.Equal(t, id, job.JSON200.JobID)
	require.Equal(t, "acme", job.JSON200.WorkspaceID)
	require.Equal(t, string(client.KnownStatusPending), job.JSON200.Status)
	require.Equal(t, "tester", *job.JSON200.ActorID)
	require.JSONEq(t, `{"to":"ada@example.com","big":9223372036854775809}`, string(job.JSON200.Params))
	require.Contains(t, string(job.JSON200.Params), "9223372036854775809", "to the last digit")
	require.Equal(t, "null", string(job.JSON200.Result))
	require.NotNil(t, job.JSON200.EnqueuedAt)
	require.Nil(t, job.JSON200.FinishedAt)
	require.Nil(t, job.JSON200.DurationMs)

	another, err := acme.ExecuteWithResponse(ctx, nil, client.ExecuteRequest{ActionProvider: "echo", ActionName: "say"})
	require.NoError(t, err)
	one, status := 1, client.KnownStatusPending
	page, err := acme.ListJobsWithResponse(ctx, &client.ListJobsParams{Limit: &one, Status: &status})
	require.NoError(t, err)
	require.NotNil(t, page.JSON200, "%s", page.Body)
	require.Equal(t, another.JSON200.JobID, page.JSON200.Jobs[0].JobID, "newest first")
	require.NotNil(t, page.JSON200.NextCursor)
	page, err = acme.ListJobsWithResponse(ctx, &client.ListJobsParams{Cursor: page.JSON200.NextCursor})
	require.NoError(t, err)
	require.Equal(t, 1, page.JSON200.Count)
	require.Equal(t, *job.JSON200, page.JSON200.Jobs[0])
	require.Nil(t, page.JSON200.NextCursor)

	again, err := acme.ExecuteWithResponse(ctx, nil, request)
	require.NoError(t, err)
	require.Equal(t, id, again.JSON200.JobID)
	require.Equal(t, "true", *again.Headers200.IdempotencyReplayed)
	request.Params = nil
	reused, err := acme.ExecuteWithResponse(ctx, nil, request)
	require.NoError(t, err)
	require.Equal(t, client.ErrorCodeIdempotencyKeyReuse, reused.ApplicationProblemJSON422.Code)

	absent, err := globex.GetJobWithResponse(ctx, id, nil)
	require.NoError(t, err)
	require.Equal(t, client.ErrorCodeJobNotFound, absent.ApplicationProblemJSON404.Code)
	require.Equal(t, absent.Headers404.XRequestID, absent.ApplicationProblemJSON404.RequestID)
	workspace := "acme"
	forged, err := globex.ExecuteWithResponse(ctx, nil, client.ExecuteRequest{
		ActionProvider: "google", ActionName: "gmail.send", WorkspaceID: &workspace,
	})
	require.NoError(t, err)
	require.Equal(t, client.ErrorCodeOtherWorkspace, forged.ApplicationProblemJSON403.Code)
	require.Equal(t, "Cannot execute actions in other workspaces", forged.ApplicationProblemJSON403.Detail)
	spied, err := globex.ListJobsWithResponse(ctx, &client.ListJobsParams{WorkspaceID: &workspace})
	require.NoError(t, err)
	require.Equal(t, client.ErrorCodeOtherWorkspace, client.ProblemOf(spied).Code)

	nobody, err := as(t, server.URL, "relay_sk_unknown").GetJobWithResponse(ctx, id, nil)
	require.NoError(t, err)
	require.Equal(t, `Bearer realm="relay", error="invalid_token"`, nobody.Headers401.WWWAuthenticate)
	bad, err := acme.ListJobsWithResponse(ctx, &client.ListJobsParams{Limit: new(int)})
	require.NoError(t, err)
	require.Equal(t, "limit", *bad.ApplicationProblemJSON400.Errors[0].Parameter)
	require.NoError(t, redis.Kill())
	away, err := acme.GetJobWithResponse(ctx, id, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusInternalServerError, away.StatusCode())
	require.Equal(t, "1", *away.Headers500.RetryAfter)
	require.Equal(t, client.ErrorCodeStorageUnavailable, client.ProblemOf(away).Code)
}

// TestClientAsksForAnyID: the bytes of an id stay within their segment of the path.
func TestClientAsksForAnyID(t *testing.T) {
	t.Parallel()
	redis, keys := redisserver.Start(t), harness.NewKeys(t)
	token := keys.Token(t, "acme")
	server := harness.Start(t, map[string]string{"REDIS_URL": redis.URL(), "RELAY_API_KEYS_FILE": keys.Path})
	for _, id := range []string{"a/b", "../../docs", "a?limit=1", "a#b", "a b+c%2F", "ü\n", "a,b;c"} {
		require.NoError(t, redis.Client(t).HSet(t.Context(), "ai:jobs:"+id, "job_id", id, "workspace_id", "acme", "status", "failed",
			"action_provider", "p", "action_name", "n", "params", "{}", "actor_id", "a", "enqueued_at", "2026-11-21T19:28:54.017837+00:00").Err())
		job, err := as(t, server.URL, token).GetJobWithResponse(t.Context(), id, nil)
		require.NoError(t, err)
		require.NotNil(t, job.JSON200, "%q: %s", id, job.Body)
		require.Equal(t, id, job.JSON200.JobID)
	}
}
