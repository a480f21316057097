package httpapi_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/adapters/httpapi"
)

// nested is params nested so deep that the body has depth levels.
func nested(depth int) string {
	return `"params":` + strings.Repeat(`{"a":`, depth-2) + `{}` + strings.Repeat(`}`, depth-2)
}

// sized is a params object of n bytes.
func sized(n int) string {
	return `{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}`
}

func form(a ask, contentType ...string) ask { return a.with("Content-Type", contentType...) }

// TestRefusals holds each row of the error table beside an allowed request that differs in nothing else. No repository
// expects a call while a request is refused.
func TestRefusals(t *testing.T) {
	t.Parallel()
	smallest := `{"action_provider":"p","action_name":"n"}`
	padding := strings.Repeat(" ", 1<<20-len(smallest))
	tests := map[string]struct {
		refused, allowed ask
		status           int
		code             httpapi.ErrorCode
		at               string // pointer or parameter of the first error, "-" for the body as a whole
	}{
		"no credential, execute":    {execute(smallest).as(""), execute(smallest), 401, "invalid_token", ""},
		"no credential, list":       {list("").as(""), list(""), 401, "invalid_token", ""},
		"no credential, get":        {get("a").as(""), get("a"), 401, "invalid_token", ""},
		"unknown credential":        {list("").as("unknown"), list(""), 401, "invalid_token", ""},
		"credential without scheme": {list("").with("Authorization", "good"), list("").with("Authorization", "Bearer good"), 401, "invalid_token", ""},
		"credential of another scheme": {
			list("").with("Authorization", "Basic good"), list("").with("Authorization", "bEARER good"),
			401, "invalid_token", "",
		},
		"scheme alone":    {list("").with("Authorization", "Bearer"), list("").with("Authorization", "Bearer   good"), 401, "invalid_token", ""},
		"two credentials": {list("").with("Authorization", "Bearer good", "Bearer good"), list("").with("Authorization", "Bearer good"), 401, "invalid_token", ""},
		"credential with more behind it": {
			list("").with("Authorization", "Bearer good good"), list("").with("Authorization", "Bearer padded=="),
			401, "invalid_token", "",
		},
		"credential that is no token": {
			list("").with("Authorization", "Bearer go,od"), list("").with("Authorization", "Bearer aZ09-._~+/"),
			401, "invalid_token", "",
		},
		"credential without workspace, execute":   {execute(smallest).as("homeless"), execute(smallest), 403, "workspace_missing", ""},
		"credential without workspace, read":      {list("").as("homeless"), list(""), 403, "workspace_missing", ""},
		"credential with a malformed workspace":   {get("a").as("misplaced"), get("a"), 403, "workspace_missing", ""},
		"scope missing, execute":                  {execute(smallest).as("reader"), execute(smallest).as("executor"), 403, "insufficient_scope", ""},
		"scope missing, list":                     {list("").as("executor"), list("").as("reader"), 403, "insufficient_scope", ""},
		"scope missing, get":                      {get("a").as("powerless"), get("a").as("reader"), 403, "insufficient_scope", ""},
		"other workspace, execute":                {executeWith(`"workspace_id":"acme-eu"`), executeWith(`"workspace_id":"acme"`), 403, "other_workspace", ""},
		"other workspace, list":                   {list("?workspace_id=acme-eu"), list("?workspace_id=acme"), 403, "other_workspace", ""},
		"other workspace, get":                    {get("a?workspace_id=acme-eu"), get("a?workspace_id=acme"), 403, "other_workspace", ""},
		"other workspace, id that is none":        {get(strings.Repeat("a", 257) + "?workspace_id=acme-eu"), get("a?workspace_id=acme"), 403, "other_workspace", ""},
		"empty workspace, execute":                {executeWith(`"workspace_id":""`), executeWith(`"workspace_id":"acme"`), 400, "invalid_workspace_id", "/workspace_id"},
		"empty workspace, list":                   {list("?workspace_id="), list("?workspace_id=acme"), 400, "invalid_workspace_id", "workspace_id"},
		"empty workspace, get":                    {get("a?workspace_id"), get("a?workspace_id=acme"), 400, "invalid_workspace_id", "workspace_id"},
		"workspace with a newline":                {list("?workspace_id=acme%0A"), list("?workspace_id=acme"), 400, "invalid_workspace_id", "workspace_id"},
		"workspace that is a pattern":             {get("a?workspace_id=*"), get("a?workspace_id=acme"), 400, "invalid_workspace_id", "workspace_id"},
		"workspace in capitals":                   {executeWith(`"workspace_id":"ACME"`), executeWith(`"workspace_id":"acme"`), 400, "invalid_workspace_id", "/workspace_id"},
		"malformed workspace and unknown member":  {executeWith(`"workspace_id":"*","x":1`), executeWith(`"workspace_id":"acme"`), 400, "invalid_body", "/x"},
		"malformed workspace and empty name":      {execute(`{"action_provider":"","action_name":"n","workspace_id":"*"}`), execute(smallest), 400, "invalid_body", "/action_provider"},
		"unknown parameter, execute":              {withTarget(execute(smallest), "/ai/execute?workspace_id=acme"), execute(smallest), 400, "invalid_parameter", "workspace_id"},
		"unknown parameter, list":                 {list("?Limit=1"), list("?limit=1"), 400, "invalid_parameter", "Limit"},
		"unknown parameter, get":                  {get("a?limit=1"), get("a"), 400, "invalid_parameter", "limit"},
		"unknown parameter, livez":                {service("/livez?x=1"), service("/livez"), 400, "invalid_parameter", "x"},
		"unknown parameter, readyz":               {service("/readyz?x=1"), service("/readyz"), 400, "invalid_parameter", "x"},
		"unknown parameter, openapi":              {service("/openapi.json?x=1"), service("/openapi.json"), 400, "invalid_parameter", "x"},
		"unknown parameter, docs":                 {service("/docs?x=1"), service("/docs"), 400, "invalid_parameter", "x"},
		"parameter without a name":                {list("?=1"), list("?"), 400, "invalid_parameter", "query"},
		"parameter given twice":                   {list("?limit=1&limit=1"), list("?limit=1"), 400, "invalid_parameter", "limit"},
		"workspace given twice":                   {get("a?workspace_id=acme&workspace_id=acme"), get("a?workspace_id=acme"), 400, "invalid_parameter", "workspace_id"},
		"malformed query":                         {list("?limit=%zz"), list("?limit=%31"), 400, "invalid_parameter", "query"},
		"malformed query, livez":                  {service("/livez?%"), service("/livez"), 400, "invalid_parameter", "query"},
		"semicolon in a query":                    {list("?limit=1;status=failed"), list("?limit=1&status=failed"), 400, "invalid_parameter", "query"},
		"status unknown":                          {list("?status=done"), list("?status=completed"), 400, "invalid_parameter", "status"},
		"status empty":                            {list("?status="), list("?status=pending"), 400, "invalid_parameter", "status"},
		"status in capitals":                      {list("?status=Running"), list("?status=running"), 400, "invalid_parameter", "status"},
		"limit zero":                              {list("?limit=0"), list("?limit=1"), 400, "invalid_parameter", "limit"},
		"limit over":                              {list("?limit=1001"), list("?limit=1000"), 400, "invalid_parameter", "limit"},
		"limit negative":                          {list("?limit=-1"), list("?limit=1"), 400, "invalid_parameter", "limit"},
		"limit with a sign":                       {list("?limit=%2B1"), list("?limit=1"), 400, "invalid_parameter", "limit"},
		"limit with zeros before":                 {list("?limit=01"), list("?limit=1"), 400, "invalid_parameter", "limit"},
		"limit not decimal":                       {list("?limit=0x10"), list("?limit=16"), 400, "invalid_parameter", "limit"},
		"limit with a fraction":                   {list("?limit=1.0"), list("?limit=1"), 400, "invalid_parameter", "limit"},
		"limit in other digits":                   {list(query(map[string]string{"limit": "١"})), list("?limit=1"), 400, "invalid_parameter", "limit"},
		"limit beyond any number":                 {list("?limit=99999999999999999999"), list("?limit=999"), 400, "invalid_parameter", "limit"},
		"limit empty":                             {list("?limit="), list("?limit=1"), 400, "invalid_parameter", "limit"},
		"cursor of another form":                  {list("?cursor=next"), list("?cursor=new:1:old:0"), 400, "invalid_cursor", "cursor"},
		"cursor empty":                            {list("?cursor="), list("?cursor=17"), 400, "invalid_cursor", "cursor"},
		"cursor with a bad number":                {list("?cursor=new:-1:old:0"), list("?cursor=new:0:old:9"), 400, "invalid_cursor", "cursor"},
		"cursor and limit":                        {list("?cursor=x&limit=x"), list("?cursor=17&limit=1"), 400, "invalid_parameter", "limit"},
		"body empty":                              {execute(``), execute(smallest), 400, "invalid_body", "-"},
		"body no JSON":                            {execute(`action`), execute(smallest), 400, "invalid_body", "-"},
		"body cut off":                            {execute(smallest[:20]), execute(smallest), 400, "invalid_body", ""},
		"body an array":                           {execute(`[` + smallest + `]`), execute(smallest), 400, "invalid_body", "-"},
		"body null":                               {execute(`null`), execute(smallest), 400, "invalid_body", "-"},
		"body followed by more":                   {execute(smallest + `{}`), execute(smallest + " \r\n\t"), 400, "invalid_body", "-"},
		"body with a byte order mark":             {execute("\ufeff" + smallest), execute(smallest), 400, "invalid_body", "-"},
		"body with a comment":                     {execute(`{"action_provider":"p",/**/"action_name":"n"}`), execute(smallest), 400, "invalid_body", ""},
		"body with a trailing comma":              {execute(`{"action_provider":"p","action_name":"n",}`), execute(smallest), 400, "invalid_body", ""},
		"body not UTF-8":                          {executeWith("\"params\":{\"a\":\"\xff\"}"), executeWith(`"params":{"a":"ÿ"}`), 400, "invalid_body", "/params/a"},
		"body with half a surrogate":              {executeWith(`"params":{"a":"\ud800"}`), executeWith(`"params":{"a":"\ud83d\ude00"}`), 400, "invalid_body", "/params/a"},
		"body too deep":                           {executeWith(nested(65)), executeWith(nested(64)), 400, "invalid_body", "-"},
		"brackets within strings are not deep":    {executeWith(nested(65)), executeWith(`"params":{"a":"\"` + strings.Repeat("[{", 99) + `"}`), 400, "invalid_body", "-"},
		"member unknown":                          {executeWith(`"actor_id":"root"`), execute(smallest), 400, "invalid_body", "/actor_id"},
		"member in other case":                    {executeWith(`"Params":{}`), executeWith(`"params":{}`), 400, "invalid_body", "/Params"},
		"member given twice":                      {executeWith(`"action_name":"b"`), execute(smallest), 400, "invalid_body", "/action_name"},
		"member given twice, written differently": {executeWith(`"action\u005fname":"b"`), execute(smallest), 400, "invalid_body", "/action_name"},
		"member given twice within":               {executeWith(`"params":{"a":[{"b":1,"b":1}]}`), executeWith(`"params":{"a":[{"b":1},{"b":1}]}`), 400, "invalid_body", "/params/a/0/b"},
		"provider missing":                        {execute(`{"action_name":"n"}`), execute(smallest), 400, "invalid_body", "/action_provider"},
		"name missing":                            {execute(`{"action_provider":"p"}`), execute(smallest), 400, "invalid_body", "/action_name"},
		"provider null":                           {execute(`{"action_provider":null,"action_name":"n"}`), execute(smallest), 400, "invalid_body", "/action_provider"},
		"name a number":                           {execute(`{"action_provider":"p","action_name":1}`), execute(smallest), 400, "invalid_body", "/action_name"},
		"name empty":                              {execute(`{"action_provider":"p","action_name":""}`), execute(smallest), 400, "invalid_body", "/action_name"},
		"name too long":                           {execute(`{"action_provider":"p","action_name":"` + strings.Repeat("n", 257) + `"}`), execute(`{"action_provider":"p","action_name":"` + strings.Repeat("n", 256) + `"}`), 400, "invalid_body", "/action_name"},
		"name too long in bytes":                  {execute(`{"action_provider":"p","action_name":"` + strings.Repeat("ü", 129) + `"}`), execute(`{"action_provider":"p","action_name":"` + strings.Repeat("ü", 128) + `"}`), 400, "invalid_body", "/action_name"},
		"provider with a control character":       {execute(`{"action_provider":"p\n","action_name":"n"}`), execute(`{"action_provider":"p :*","action_name":"n"}`), 400, "invalid_body", "/action_provider"},
		"name with a control character of C1":     {execute(`{"action_provider":"p","action_name":"\u0085"}`), execute(`{"action_provider":"p","action_name":"\u00a0"}`), 400, "invalid_body", "/action_name"},
		"params null":                             {executeWith(`"params":null`), executeWith(`"params":{}`), 400, "invalid_body", "/params"},
		"params an array":                         {executeWith(`"params":[]`), executeWith(`"params":{"a":[]}`), 400, "invalid_body", "/params"},
		"params a text of JSON":                   {executeWith(`"params":"{}"`), executeWith(`"params":{}`), 400, "invalid_body", "/params"},
		"workspace null":                          {executeWith(`"workspace_id":null`), executeWith(`"workspace_id":"acme"`), 400, "invalid_body", "/workspace_id"},
		"client_request_id null":                  {executeWith(`"client_request_id":null`), executeWith(`"client_request_id":"a"`), 400, "invalid_body", "/client_request_id"},
		"client_request_id empty":                 {executeWith(`"client_request_id":""`), executeWith(`"client_request_id":" "`), 400, "invalid_body", "/client_request_id"},
		"client_request_id too long":              {executeWith(`"client_request_id":"` + strings.Repeat("a", 201) + `"`), executeWith(`"client_request_id":"` + strings.Repeat("a", 200) + `"`), 400, "invalid_body", "/client_request_id"},
		"client_request_id not ASCII":             {executeWith(`"client_request_id":"ü"`), executeWith(`"client_request_id":"~"`), 400, "invalid_body", "/client_request_id"},
		"Idempotency-Key empty":                   {execute(smallest).with("Idempotency-Key", ""), execute(smallest).with("Idempotency-Key", "a"), 400, "invalid_parameter", "Idempotency-Key"},
		"Idempotency-Key not ASCII":               {execute(smallest).with("Idempotency-Key", "ü"), execute(smallest).with("Idempotency-Key", `"a"`), 400, "invalid_parameter", "Idempotency-Key"},
		"Idempotency-Key given twice":             {execute(smallest).with("Idempotency-Key", "a", "a"), execute(smallest).with("Idempotency-Key", "a"), 400, "invalid_parameter", "Idempotency-Key"},
		"idempotency keys differ": {
			executeWith(`"client_request_id":"a"`).with("Idempotency-Key", "A"),
			executeWith(`"client_request_id":"a"`).with("Idempotency-Key", "a"), 400, "idempotency_keys_differ", "Idempotency-Key",
		},
		"body too large":           {execute(smallest + padding + " "), execute(smallest + padding), 413, "body_too_large", ""},
		"body too large, unsaid":   {unsaid(smallest + padding + " "), unsaid(smallest + padding), 413, "body_too_large", ""},
		"params too large":         {executeWith(`"params":` + sized(256<<10+1)), executeWith(`"params":` + sized(256<<10)), 413, "params_too_large", "/params"},
		"params too large at all":  {executeWith(`"params":` + sized(256<<10+1)), executeWith(`"params": {` + padding[:300<<10] + `}`), 413, "params_too_large", "/params"},
		"no media type":            {form(execute(smallest)), execute(smallest), 415, "unsupported_media_type", ""},
		"another media type":       {form(execute(smallest), "text/json"), form(execute(smallest), "Application/JSON"), 415, "unsupported_media_type", ""},
		"another charset":          {form(execute(smallest), "application/json; charset=latin1"), form(execute(smallest), `application/json;charset="UTF-8"`), 415, "unsupported_media_type", ""},
		"another media parameter":  {form(execute(smallest), "application/json; profile=x"), form(execute(smallest), "application/json; charset=utf-8"), 415, "unsupported_media_type", ""},
		"media type twice":         {form(execute(smallest), "application/json", "application/json"), execute(smallest), 415, "unsupported_media_type", ""},
		"compressed":               {execute(smallest).with("Content-Encoding", "gzip"), execute(smallest), 415, "unsupported_media_type", ""},
		"id too long":              {get(strings.Repeat("a", 257)), get(strings.Repeat("a", 256)), 404, "job_not_found", ""},
		"no route":                 {list("/a/b"), list("/a"), 404, "route_not_found", ""},
		"id with a raw slash":      {get("a/b"), get("a%2Fb"), 404, "route_not_found", ""},
		"route with a slash more":  {list("/"), list(""), 404, "route_not_found", ""},
		"route in capitals":        {service("/Docs"), service("/docs"), 404, "route_not_found", ""},
		"route with dots":          {service("/docs/../docs"), service("/docs"), 404, "route_not_found", ""},
		"metrics are not here":     {service("/metrics"), service("/livez"), 404, "route_not_found", ""},
		"profiles are not here":    {service("/debug/pprof/"), service("/livez"), 404, "route_not_found", ""},
		"method, execute":          {withMethod(execute(smallest), http.MethodGet), execute(smallest), 405, "method_not_allowed", ""},
		"method, list":             {withMethod(list(""), http.MethodDelete), list(""), 405, "method_not_allowed", ""},
		"method, get":              {withMethod(get("a"), http.MethodPut), get("a"), 405, "method_not_allowed", ""},
		"method that nobody knows": {withMethod(service("/docs"), "BREW"), service("/docs"), 405, "method_not_allowed", ""},
	}
	details := map[httpapi.ErrorCode]string{
		"invalid_token":        "Invalid authentication token",
		"workspace_missing":    "Workspace not found in authentication token",
		"invalid_workspace_id": "Invalid workspace_id format",
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t)
			if test.code == "other_workspace" {
				e.observer.EXPECT().OtherWorkspaceRequested(workspaceID(t, "acme"), workspaceID(t, "acme-eu"))
			}
			w := e.do(test.refused)
			p := problemIn(t, w)
			require.Equal(t, test.status, w.Code, w.Body)
			require.Equal(t, test.code, p.Code)
			if detail, ok := details[p.Code]; ok {
				require.Equal(t, detail, p.Detail)
			}
			switch {
			case test.at == "-":
				require.Empty(t, *p.Errors[0].Pointer)
			case strings.HasPrefix(test.at, "/"):
				require.Equal(t, test.at, *p.Errors[0].Pointer)
			case test.at != "":
				require.Equal(t, test.at, *p.Errors[0].Parameter)
			}

			w = newEdge(t).serving().do(test.allowed)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
		})
	}
}

func service(target string) ask { return ask{method: http.MethodGet, target: target} }

func withMethod(a ask, method string) ask {
	a.method = method
	return a
}

func withTarget(a ask, target string) ask {
	a.target = target
	return a
}

// unsaid is a request for an action that does not announce its length.
func unsaid(body string) ask {
	a := execute(body)
	a.reader = struct{ *strings.Reader }{strings.NewReader(body)}
	return a
}

func TestOtherWorkspaceTexts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asked ask
		want  string
	}{
		{executeWith(`"workspace_id":"acme-eu"`), "Cannot execute actions in other workspaces"},
		{list("?workspace_id=acme-eu"), "Cannot access jobs from other workspaces"},
		{get("a?workspace_id=acme-eu"), "Cannot access jobs from other workspaces"},
	} {
		e := newEdge(t)
		e.observer.EXPECT().OtherWorkspaceRequested(gomock.Any(), gomock.Any())
		w := e.do(test.asked)
		require.Equal(t, test.want, problemIn(t, w).Detail)
		require.NotContains(t, w.Body.String(), "acme", "no workspace is named, not even the given one")
	}
}

// TestOrderOfChecks: of two reasons the earlier one answers.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	bad := func(credential string) ask { return execute(`{`).as(credential).with("Content-Type", "text/plain") }
	for name, test := range map[string]struct {
		asked ask
		code  httpapi.ErrorCode
	}{
		"credential before input":          {bad("unknown"), "invalid_token"},
		"workspace before scope and input": {bad("nobody"), "workspace_missing"},
		"scope before input":               {bad("reader"), "insufficient_scope"},
		"input before same workspace":      {executeWith(`"workspace_id":"acme-eu","x":1`), "invalid_body"},
		"scope before same workspace":      {executeWith(`"workspace_id":"acme-eu"`).as("reader"), "insufficient_scope"},
		"credential before parameters":     {list("?x=1").as(""), "invalid_token"},
		"credential before the job's id":   {get(strings.Repeat("a", 257)).as(""), "invalid_token"},
		"parameters before the job's id":   {get(strings.Repeat("a", 257) + "?x=1"), "invalid_parameter"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.code, problemIn(t, newEdge(t).do(test.asked)).Code)
		})
	}
}

// untouchable is a body that must not be read.
type untouchable struct{ t *testing.T }

func (u untouchable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, errors.New("untouchable")
}

func TestRefusedCallersBodyIsNotRead(t *testing.T) {
	t.Parallel()
	for _, credential := range []string{"", "unknown", "homeless", "reader"} {
		a := execute("").as(credential)
		a.reader = untouchable{t}
		require.NotEqual(t, http.StatusOK, newEdge(t).do(a).Code)
	}
}

func TestChallenges(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		asked ask
		want  string
	}{
		"nothing sent":      {list("").as(""), `Bearer realm="relay"`},
		"another scheme":    {list("").with("Authorization", "Basic Z29vZA=="), `Bearer realm="relay"`},
		"unknown":           {list("").as("unknown"), `Bearer realm="relay", error="invalid_token"`},
		"malformed":         {list("").with("Authorization", "Bearer a b"), `Bearer realm="relay", error="invalid_token"`},
		"scope for execute": {execute("{}").as("reader"), `Bearer realm="relay", error="insufficient_scope", scope="ai:execute"`},
		"scope for read":    {get("a").as("executor"), `Bearer realm="relay", error="insufficient_scope", scope="ai:jobs:read"`},
		"no workspace":      {get("a").as("homeless"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, newEdge(t).do(test.asked).Header().Get("WWW-Authenticate"))
		})
	}
}

// TestManyViolationsStayFew: an answer stays small however much is wrong.
func TestManyViolationsStayFew(t *testing.T) {
	t.Parallel()
	var members strings.Builder
	for i := range 5000 {
		members.WriteString(`,"` + strings.Repeat("x", i+1) + `":0`)
	}
	body := `{"action_provider":"p","action_name":"n"` + members.String()[:900<<10]
	body = body[:strings.LastIndex(body, ",")] + "}"
	w := newEdge(t).do(execute(body))
	p := problemIn(t, w)
	require.Len(t, p.Errors, 32)
	require.Less(t, w.Body.Len(), 10<<10)

	w = newEdge(t).do(execute(`{"` + strings.Repeat("x", 1<<19) + `":0}`))
	require.Empty(t, *problemIn(t, w).Errors[0].Pointer, "the pointer of a very long name is that of its holder")
	require.Less(t, w.Body.Len(), 1<<10)

	w = newEdge(t).do(list("?" + strings.Repeat("x", 4096) + "=0"))
	require.Less(t, w.Body.Len(), 1<<10)
}
