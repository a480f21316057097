package app_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"

	"github.com/relay-jobs/relay/app"
	"github.com/relay-jobs/relay/core/migration"
)

type environment = map[string]string

// with adds to an environment that serves.
func with(more environment) environment {
	e := environment{"RELAY_API_KEYS_FILE": "/etc/relay/keys.yaml"}
	maps.Copy(e, more)
	return e
}

func TestDefaultsAreReadRoutingOnLoopback(t *testing.T) {
	t.Parallel()
	c, err := app.Load(with(nil))
	require.NoError(t, err)
	require.Equal(t, migration.ReadRouting, c.Phase)
	require.Equal(t, "127.0.0.1:8080", c.HTTPAddr)
	require.Equal(t, "127.0.0.1:9090", c.AdminAddr)
	require.Equal(t, "redis://127.0.0.1:6379/0", c.RedisURL)
	require.Equal(t, zapcore.InfoLevel, c.LogLevel)
	require.Equal(t, 1000, c.WorkspaceLabels)
	require.Zero(t, c.Retention)
	require.Equal(t, time.Minute, c.IndexSweep)
	require.False(t, bool(c.Demo))
}

func TestSwitchesTakeSixWordsInAnyCase(t *testing.T) {
	t.Parallel()
	for word, on := range map[string]bool{
		"on": true, "ON": true, "true": true, "True": true, "1": true,
		"off": false, "Off": false, "false": false, "FALSE": false, "0": false,
	} {
		c, err := app.Load(with(environment{"AI_JOBS_NEW_SCHEMA": word}))
		require.NoError(t, err, word)
		require.Equal(t, on, bool(c.NewSchema), word)
	}
}

func TestSchemaFlagsMakeThePhase(t *testing.T) {
	t.Parallel()
	word := map[bool]string{true: "on", false: "off"}
	legal := map[migration.Flags]migration.Phase{}
	for _, p := range migration.Phases() {
		legal[p.Flags()] = p
	}
	for bits := range 16 {
		f := migration.Flags{
			NewSchema: bits&1 != 0, OldSchema: bits&2 != 0, PrefersNew: bits&4 != 0, FallbackOld: bits&8 != 0,
		}
		c, err := app.Load(with(environment{
			"AI_JOBS_NEW_SCHEMA": word[f.NewSchema], "AI_JOBS_OLD_SCHEMA": word[f.OldSchema],
			"READ_PREFERS_NEW": word[f.PrefersNew], "READ_FALLBACK_OLD": word[f.FallbackOld],
		}))
		if phase, ok := legal[f]; ok {
			require.NoError(t, err)
			require.Equal(t, phase, c.Phase)
			continue
		}
		_, reason := migration.PhaseOf(f)
		require.ErrorContains(t, err, reason.Error())
	}
}

func TestWrongValuesAreRefusedByTheNameOfTheirVariableAndNotRepeated(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, given := range []environment{
		{"AI_JOBS_NEW_SCHEMA": "yes"},
		{"AI_JOBS_OLD_SCHEMA": secret},
		{"READ_PREFERS_NEW": " on"},
		{"RELAY_DEMO": "maybe"},
		{"RELAY_HTTP_ADDR": "8080"},
		{"RELAY_HTTP_ADDR": "localhost:http"},
		{"RELAY_HTTP_ADDR": "localhost:65536"},
		{"RELAY_HTTP_ADDR": "127.0.0.1:"},
		{"RELAY_HTTP_ADDR": "127.0.0.1:+80"},
		{"RELAY_ADMIN_ADDR": "::1:80"},
		{"REDIS_URL": "http://:" + secret + "@localhost"},
		{"REDIS_URL": "redis://:" + secret + "@localhost:x"},
		{"REDIS_URL": "redis://relay-server:" + secret + "/+#@localhost:6379/0"},
		{"REDIS_URL": secret},
		{"REDIS_URL": "redis://localhost/zero"},
		{"RELAY_REDIS_POOL_SIZE": "-1"},
		{"RELAY_REDIS_POOL_SIZE": secret},
		{"RELAY_REDIS_POOL_SIZE": "100000"},
		{"RELAY_REDIS_DIAL_TIMEOUT": "0"},
		{"RELAY_REDIS_READ_TIMEOUT": "2"},
		{"RELAY_REDIS_WRITE_TIMEOUT": "-1s"},
		{"RELAY_RETENTION": "-1h"},
		{"RELAY_RETENTION": "1ms"},
		{"RELAY_RETENTION": "30d"},
		{"RELAY_INDEX_SWEEP": "999ms"},
		{"RELAY_INDEX_SWEEP": "-1m"},
		{"RELAY_INDEX_SWEEP": "60"},
		{"RELAY_HTTP_READ_HEADER_TIMEOUT": "0s"},
		{"RELAY_HTTP_READ_TIMEOUT": "0s"},
		{"RELAY_HTTP_WRITE_TIMEOUT": "0s"},
		{"RELAY_HTTP_IDLE_TIMEOUT": "0s"},
		{"RELAY_SHUTDOWN_GRACE": "0s"},
		{"RELAY_LOG_LEVEL": "loud"},
		{"RELAY_LOG_LEVEL": "panic"},
		{"RELAY_WORKSPACE_LABELS": "0"},
		{"RELAY_WORKSPACE_LABELS": "all"},
		{"RELAY_WORKSPACE_LABELS": "99999999999"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://collector:4317"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:" + secret + "@collector"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector?key=" + secret},
		{"RELAY_TRACE_RATIO": "1.01"},
		{"RELAY_TRACE_RATIO": "-0.1"},
		{"RELAY_TRACE_RATIO": "NaN"},
		{"RELAY_TRACE_RATIO": "10%"},
		{"RELAY_JWT_LEEWAY": "6m"},
		{"RELAY_JWT_LEEWAY": "-1s"},
	} {
		for variable := range given {
			_, err := app.Load(with(given))
			var refused *app.ConfigError
			require.ErrorAs(t, err, &refused, "%v", given)
			require.Equal(t, variable, refused.Variable)
			require.NotEmpty(t, refused.Reason)
			require.NotContains(t, err.Error(), secret)
			require.Equal(t, variable == "REDIS_URL", strings.Contains(err.Error(), "user and password percent-encoded"))
			require.Contains(t, err.Error(), variable+" (--"+app.FlagName(variable)+"): ")
		}
	}
}

// An empty text would pass for the default or for a variable that is not set: a lost REDIS_URL for the server on this
// machine, a lost file for no keys of that kind.
func TestSetButEmptyIsRefusedByName(t *testing.T) {
	t.Parallel()
	for _, v := range app.Variables() {
		_, err := app.Load(with(environment{v.Name: ""}))
		require.EqualError(t, err, v.Name+" (--"+v.Flag+"): is set but empty: give it a value, or unset it")
		var refused *app.ConfigError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, v.Name, refused.Variable)
	}
}

func TestEveryWrongValueIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := app.Load(environment{"RELAY_LOG_LEVEL": "loud", "READ_PREFERS_NEW": "x", "RELAY_RETENTION": "soon"})
	for _, variable := range []string{"RELAY_LOG_LEVEL", "READ_PREFERS_NEW", "RELAY_RETENTION"} {
		require.ErrorContains(t, err, variable)
	}
}

func TestAuthenticationMustBeConfigured(t *testing.T) {
	t.Parallel()
	const long = "0123456789abcdef0123456789abcdef"
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(long+"\n"), 0o600))
	jwt := func(more environment) environment {
		e := environment{
			"RELAY_JWT_ALGORITHMS": "HS256", "RELAY_JWT_ISSUER": "me", "RELAY_JWT_AUDIENCE": "relay", "RELAY_JWT_SECRET": long,
		}
		maps.Copy(e, more)
		maps.DeleteFunc(e, func(_, value string) bool { return value == "" }) // how the cases below unset one
		return e
	}
	for name, c := range map[string]struct {
		given environment
		names string // part of the complaint; empty where there is none
	}{
		"nothing":               {environment{}, "RELAY_API_KEYS_FILE"},
		"a file":                {environment{"RELAY_API_KEYS_FILE": "k"}, ""},
		"demo":                  {environment{"RELAY_DEMO": "on"}, ""},
		"demo and a file":       {environment{"RELAY_DEMO": "on", "RELAY_API_KEYS_FILE": "k"}, "RELAY_API_KEYS_FILE"},
		"demo and JWT":          {jwt(environment{"RELAY_DEMO": "on"}), "RELAY_JWT_*"},
		"HS256":                 {jwt(nil), ""},
		"HS256 and a file":      {jwt(environment{"RELAY_API_KEYS_FILE": "k"}), ""},
		"HS256 by file":         {jwt(environment{"RELAY_JWT_SECRET": "", "RELAY_JWT_SECRET_FILE": file}), ""},
		"no algorithm":          {jwt(environment{"RELAY_JWT_ALGORITHMS": ""}), "RELAY_JWT_ALGORITHMS"},
		"none":                  {jwt(environment{"RELAY_JWT_ALGORITHMS": "HS256,none"}), "RELAY_JWT_ALGORITHMS"},
		"no issuer":             {jwt(environment{"RELAY_JWT_ISSUER": ""}), "RELAY_JWT_ISSUER"},
		"no audience":           {jwt(environment{"RELAY_JWT_AUDIENCE": ""}), "RELAY_JWT_AUDIENCE"},
		"no secret":             {jwt(environment{"RELAY_JWT_SECRET": ""}), "RELAY_JWT_SECRET"},
		"no such file":          {jwt(environment{"RELAY_JWT_SECRET": "", "RELAY_JWT_SECRET_FILE": "none"}), "RELAY_JWT_SECRET_FILE"},
		"a device":              {jwt(environment{"RELAY_JWT_SECRET": "", "RELAY_JWT_SECRET_FILE": "/dev/zero"}), "RELAY_JWT_SECRET_FILE"},
		"a short secret":        {jwt(environment{"RELAY_JWT_SECRET": long[1:]}), "RELAY_JWT_SECRET"},
		"two secrets":           {jwt(environment{"RELAY_JWT_SECRET_FILE": "f"}), "RELAY_JWT_SECRET"},
		"a secret for nothing":  {jwt(environment{"RELAY_JWT_ALGORITHMS": "RS256", "RELAY_JWT_JWKS_FILE": "f"}), "RELAY_JWT_SECRET"},
		"no public keys":        {jwt(environment{"RELAY_JWT_ALGORITHMS": "HS256, ES256"}), "RELAY_JWT_JWKS_URL"},
		"both":                  {jwt(environment{"RELAY_JWT_ALGORITHMS": "HS256, ES256", "RELAY_JWT_JWKS_FILE": "f"}), ""},
		"keys from two places":  {jwt(environment{"RELAY_JWT_JWKS_FILE": "f", "RELAY_JWT_JWKS_URL": "https://x"}), "RELAY_JWT_JWKS_URL"},
		"public keys for HS256": {jwt(environment{"RELAY_JWT_JWKS_FILE": "f"}), "RELAY_JWT_JWKS_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := app.Load(c.given)
			if c.names == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.names)
			require.NotContains(t, err.Error(), long[1:])
		})
	}
}

func TestDemoStaysOnLoopbackAndAwayFromARealRedis(t *testing.T) {
	t.Parallel()
	c, err := app.Load(environment{"RELAY_DEMO": "on"})
	require.NoError(t, err)
	require.Equal(t, migration.DualWrite, c.Phase)

	c, err = app.Load(environment{"RELAY_DEMO": "on", "AI_JOBS_NEW_SCHEMA": "off"})
	require.NoError(t, err)
	require.Equal(t, migration.ReadRouting, c.Phase)

	for variable, value := range (environment{
		"REDIS_URL": "redis://localhost:6379", "RELAY_HTTP_ADDR": "0.0.0.0:80", "RELAY_ADMIN_ADDR": ":9090",
	}) {
		_, err := app.Load(environment{"RELAY_DEMO": "on", variable: value})
		var refused *app.ConfigError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, variable, refused.Variable)
	}
	for _, addr := range []string{"localhost:0", "127.0.0.2:1", "[::1]:1"} {
		_, err := app.Load(environment{"RELAY_DEMO": "on", "RELAY_HTTP_ADDR": addr})
		require.NoError(t, err, addr)
	}
}

func TestVariablesHaveUniqueFlagsAndADescription(t *testing.T) {
	t.Parallel()
	flags := map[string]bool{}
	for _, v := range app.Variables() {
		require.False(t, flags[v.Flag], v.Flag)
		flags[v.Flag] = true
		require.NotEmpty(t, v.Usage, v.Name)
	}
	require.True(t, flags["http-addr"])
	require.True(t, flags["redis-url"])
	require.True(t, flags["ai-jobs-new-schema"])
}

func TestDurationsAreRead(t *testing.T) {
	t.Parallel()
	c, err := app.Load(with(environment{"RELAY_RETENTION": "720h", "RELAY_SHUTDOWN_GRACE": "3s", "RELAY_INDEX_SWEEP": "0"}))
	require.NoError(t, err)
	require.Equal(t, 720*time.Hour, c.Retention)
	require.Equal(t, 3*time.Second, c.ShutdownGrace)
	require.Zero(t, c.IndexSweep)
}

func TestLoadRedisReadsWhatReachesRedisAlone(t *testing.T) {
	t.Parallel()
	o, err := app.LoadRedis(environment{
		"REDIS_URL": "unix:///run/redis.sock", "RELAY_REDIS_READ_TIMEOUT": "7s", "RELAY_LOG_LEVEL": "loud", "RELAY_DEMO": "",
	})
	require.NoError(t, err)
	require.Equal(t, "unix:///run/redis.sock", o.URL)
	require.Equal(t, 7*time.Second, o.ReadTimeout)
	require.Equal(t, 2*time.Second, o.DialTimeout, "the default")
	for variable, value := range (environment{"REDIS_URL": "hunter2", "RELAY_REDIS_READ_TIMEOUT": "0", "RELAY_REDIS_POOL_SIZE": ""}) {
		_, err := app.LoadRedis(environment{variable: value})
		var refused *app.ConfigError
		require.ErrorAs(t, err, &refused, variable)
		require.Equal(t, variable, refused.Variable)
	}
}
