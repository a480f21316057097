// Package app puts the service together: its configuration, and the one graph that binds ports to adapters.
package app

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"go.uber.org/zap/zapcore"

	"github.com/relay-jobs/relay/adapters/jwtauth"
	"github.com/relay-jobs/relay/adapters/redisjobs"
	"github.com/relay-jobs/relay/adapters/telemetry"
	"github.com/relay-jobs/relay/core/migration"
)

// Config is what an operator sets. Each field is an environment variable and a flag of `relay serve`; its tags hold
// the variable's name, its default, what a value must be, and what it is for.
type Config struct {
	HTTPAddr  string `env:"RELAY_HTTP_ADDR" envDefault:"127.0.0.1:8080" want:"host:port" usage:"where the API listens; port 0 takes a free one"`
	AdminAddr string `env:"RELAY_ADMIN_ADDR" envDefault:"127.0.0.1:9090" want:"host:port" usage:"where metrics and pprof are served; keep consumers away from it"`

	RedisURL          string        `env:"REDIS_URL" envDefault:"redis://127.0.0.1:6379/0" want:"a redis://, rediss:// or unix:// URL with user and password percent-encoded" usage:"the Redis server"`
	RedisPoolSize     int           `env:"RELAY_REDIS_POOL_SIZE" envDefault:"0" want:"a whole number from 0 to 10000" usage:"connections to Redis; 0 is 10 for each CPU"`
	RedisDialTimeout  time.Duration `env:"RELAY_REDIS_DIAL_TIMEOUT" envDefault:"2s" want:"a duration above 0, such as 2s" usage:"time to connect to Redis"`
	RedisReadTimeout  time.Duration `env:"RELAY_REDIS_READ_TIMEOUT" envDefault:"2s" want:"a duration above 0, such as 2s" usage:"time for an answer of Redis"`
	RedisWriteTimeout time.Duration `env:"RELAY_REDIS_WRITE_TIMEOUT" envDefault:"2s" want:"a duration above 0, such as 2s" usage:"time to send a command to Redis"`

	NewSchema   Switch `env:"AI_JOBS_NEW_SCHEMA" envDefault:"off" want:"on or off" usage:"write the workspace-scoped key schema"`
	OldSchema   Switch `env:"AI_JOBS_OLD_SCHEMA" envDefault:"on" want:"on or off" usage:"write the unscoped key schema"`
	PrefersNew  Switch `env:"READ_PREFERS_NEW" envDefault:"on" want:"on or off" usage:"read the workspace-scoped key schema"`
	FallbackOld Switch `env:"READ_FALLBACK_OLD" envDefault:"on" want:"on or off" usage:"read the unscoped key schema"`

	APIKeysFile   string        `env:"RELAY_API_KEYS_FILE" want:"a readable file" usage:"YAML file of API keys; changes take effect within seconds"`
	JWTAlgorithms []string      `env:"RELAY_JWT_ALGORITHMS" want:"some of HS256, RS256, ES256, EdDSA, separated by commas" usage:"signatures that JWTs may have, separated by commas"`
	JWTIssuer     string        `env:"RELAY_JWT_ISSUER" want:"the text of the claim iss" usage:"the claim iss that JWTs must have"`
	JWTAudience   string        `env:"RELAY_JWT_AUDIENCE" want:"the text of the claim aud" usage:"the claim aud that JWTs must have"`
	JWTJWKSURL    string        `env:"RELAY_JWT_JWKS_URL" want:"an https:// or http:// URL" usage:"where the public keys for RS256, ES256 and EdDSA are found"`
	JWTJWKSFile   string        `env:"RELAY_JWT_JWKS_FILE" want:"a readable file" usage:"file of those public keys, instead of a URL"`
	JWTSecret     string        `env:"RELAY_JWT_SECRET" want:"32 bytes or more" usage:"the secret for HS256; as a flag it is visible to other users of the machine"`
	JWTSecretFile string        `env:"RELAY_JWT_SECRET_FILE" want:"a readable file" usage:"file of that secret, instead of the secret itself; a newline at its end is cut off"`
	JWTLeeway     time.Duration `env:"RELAY_JWT_LEEWAY" envDefault:"30s" want:"a duration from 0 to 5m" usage:"how far the clocks of issuer and server may differ"`

	Retention time.Duration `env:"RELAY_RETENTION" envDefault:"0" want:"a duration of 0 or from 1s, such as 720h" usage:"how long finished jobs are kept; 0 is for ever"`

	IndexSweep time.Duration `env:"RELAY_INDEX_SWEEP" envDefault:"60s" want:"a duration of 0 or from 1s, such as 60s" usage:"how often one of the servers brings the index of lists in step with jobs that others wrote, and takes expired ones out of it; 0 is never"`

	ReadHeaderTimeout time.Duration `env:"RELAY_HTTP_READ_HEADER_TIMEOUT" envDefault:"5s" want:"a duration above 0, such as 5s" usage:"time for a request's headers"`
	ReadTimeout       time.Duration `env:"RELAY_HTTP_READ_TIMEOUT" envDefault:"15s" want:"a duration above 0, such as 15s" usage:"time for a whole request"`
	WriteTimeout      time.Duration `env:"RELAY_HTTP_WRITE_TIMEOUT" envDefault:"30s" want:"a duration above 0, such as 30s" usage:"time from a request's headers to the end of its answer"`
	IdleTimeout       time.Duration `env:"RELAY_HTTP_IDLE_TIMEOUT" envDefault:"60s" want:"a duration above 0, such as 60s" usage:"how long an unused connection is kept"`
	ShutdownGrace     time.Duration `env:"RELAY_SHUTDOWN_GRACE" envDefault:"20s" want:"a duration above 0, such as 20s" usage:"how long requests may take to end when the server stops"`

	LogLevel        zapcore.Level `env:"RELAY_LOG_LEVEL" envDefault:"info" want:"debug, info, warn or error" usage:"the least severe log lines that are written"`
	WorkspaceLabels int           `env:"RELAY_WORKSPACE_LABELS" envDefault:"1000" want:"a whole number from 1 to 100000" usage:"workspaces that metrics tell apart; the rest is counted as _other"`
	TraceEndpoint   string        `env:"OTEL_EXPORTER_OTLP_ENDPOINT" want:"an http:// or https:// URL without a password or query" usage:"base URL of the collector that takes traces as OTLP over HTTP; without it there are none"`
	TraceRatio      float64       `env:"RELAY_TRACE_RATIO" envDefault:"1" want:"a number from 0 to 1" usage:"part of the traces that is kept, where no caller has decided that"`
	Demo            Switch        `env:"RELAY_DEMO" envDefault:"off" want:"on or off" usage:"serve two demo workspaces from an embedded Redis that keeps nothing"`

	// Phase is the row of the table of phases that the four schema flags stand for.
	Phase migration.Phase
}

// Switch is on or off.
type Switch bool

// UnmarshalText takes on, off, true, false, 1 and 0 in any case, and nothing else.
func (s *Switch) UnmarshalText(text []byte) error {
	switch strings.ToLower(string(text)) {
	case "on", "true", "1":
		*s = true
	case "off", "false", "0":
		*s = false
	default:
		return errors.New("neither on nor off")
	}
	return nil
}

// ConfigError says which variable stops the start, and why. It never repeats a value: some are secret, and a secret
// may have been put into the wrong variable.
type ConfigError struct {
	Variable string // empty where the fault is in how several go together
	Reason   string
}

// Error names the variable and the flag that sets it.
func (e *ConfigError) Error() string {
	if e.Variable == "" {
		return e.Reason
	}
	return fmt.Sprintf("%s (--%s): %s", e.Variable, FlagName(e.Variable), e.Reason)
}

// Variable describes one field of Config.
type Variable struct {
	Name, Flag, Default, Usage string
}

// Variables lists all in the order of Config.
func Variables() []Variable {
	var list []Variable
	for f := range reflect.TypeFor[Config]().Fields() {
		name, ok := f.Tag.Lookup("env")
		if !ok {
			continue
		}
		list = append(list, Variable{
			Name: name, Flag: FlagName(name), Default: f.Tag.Get("envDefault"), Usage: f.Tag.Get("usage"),
		})
	}
	return list
}

// FlagName gives the flag that is named like a variable: RELAY_HTTP_ADDR is http-addr, REDIS_URL is redis-url.
func FlagName(variable string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, "RELAY_"), "_", "-"))
}

// Load reads an environment. Every variable that is wrong is named, once: each joined error is a *ConfigError.
func Load(environment map[string]string) (Config, error) {
	given := func(name string) bool { return environment[name] != "" }
	var c Config
	faults := c.parse(environment)
	if len(faults) > 0 {
		return Config{}, errors.Join(faults...)
	}
	if bool(c.Demo) && !given("AI_JOBS_NEW_SCHEMA") {
		c.NewSchema = true // so that the demo shows both schemas at work
	}
	phase, err := c.phase()
	if err != nil {
		faults = append(faults, err)
	}
	c.Phase = phase
	faults = append(faults, c.outOfRange()...)
	faults = append(faults, c.authFaults()...)
	if bool(c.Demo) && given("REDIS_URL") {
		faults = append(faults, &ConfigError{
			Variable: "REDIS_URL", Reason: "the demo has a Redis of its own: unset this or RELAY_DEMO",
		})
	}
	if err := errors.Join(once(faults)...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// LoadRedis reads of an environment how to reach Redis, and nothing else.
func LoadRedis(environment map[string]string) (redisjobs.ConnectOptions, error) {
	own := map[string]string{}
	for name, value := range environment {
		if name == "REDIS_URL" || strings.HasPrefix(name, "RELAY_REDIS_") {
			own[name] = value
		}
	}
	var c Config
	faults := c.parse(own)
	if len(faults) == 0 {
		faults = c.outOfRange()
	}
	return redisOptions(c, nil), errors.Join(faults...)
}

// LoadPhase reads of an environment the flags of the phase, and nothing else.
func LoadPhase(environment map[string]string) (migration.Phase, error) {
	own := map[string]string{}
	for _, name := range []string{"AI_JOBS_NEW_SCHEMA", "AI_JOBS_OLD_SCHEMA", "READ_PREFERS_NEW", "READ_FALLBACK_OLD"} {
		if value, given := environment[name]; given {
			own[name] = value
		}
	}
	var c Config
	if faults := c.parse(own); len(faults) > 0 {
		return 0, errors.Join(faults...)
	}
	return c.phase()
}

// phase finds the row that the four flags stand for.
func (c *Config) phase() (migration.Phase, error) {
	phase, err := migration.PhaseOf(migration.Flags{
		NewSchema: bool(c.NewSchema), OldSchema: bool(c.OldSchema),
		PrefersNew: bool(c.PrefersNew), FallbackOld: bool(c.FallbackOld),
	})
	if err != nil {
		return 0, &ConfigError{Reason: err.Error()}
	}
	return phase, nil
}

// once keeps the first complaint about each variable.
func once(faults []error) []error {
	said := map[string]bool{}
	return slices.DeleteFunc(faults, func(err error) bool {
		var wrong *ConfigError
		if !errors.As(err, &wrong) || wrong.Variable == "" {
			return false
		}
		again := said[wrong.Variable]
		said[wrong.Variable] = true
		return again
	})
}

// parse fills c and gives an error for each value that has the wrong form.
func (c *Config) parse(environment map[string]string) (faults []error) {
	err := env.ParseWithOptions(c, env.Options{Environment: environment, FuncMap: map[reflect.Type]env.ParserFunc{
		reflect.TypeFor[int](): func(v string) (any, error) { return strconv.Atoi(v) },
	}})
	var wrong env.AggregateError
	if errors.As(err, &wrong) {
		for _, e := range wrong.Errors {
			var p env.ParseError
			if errors.As(e, &p) {
				faults = append(faults, mustBe(p.Name))
			} else {
				faults = append(faults, errors.New("the environment cannot be read"))
			}
		}
	}
	for i, a := range c.JWTAlgorithms {
		c.JWTAlgorithms[i] = strings.TrimSpace(a)
	}
	for _, v := range Variables() {
		// An empty text would pass for the default or for nothing set: a lost REDIS_URL for the Redis of this machine.
		if value, there := environment[v.Name]; there && value == "" {
			faults = append(faults, &ConfigError{Variable: v.Name, Reason: "is set but empty: give it a value, or unset it"})
		}
	}
	return faults
}

// mustBe is the complaint about a field's value.
func mustBe(field string) error {
	f, _ := reflect.TypeFor[Config]().FieldByName(field)
	return &ConfigError{Variable: f.Tag.Get("env"), Reason: "must be " + f.Tag.Get("want")}
}

// outOfRange gives an error for each value that has the right form and cannot be meant.
func (c *Config) outOfRange() (faults []error) {
	check := func(field string, ok bool) {
		if !ok {
			faults = append(faults, mustBe(field))
		}
	}
	check("HTTPAddr", validAddr(c.HTTPAddr))
	check("AdminAddr", validAddr(c.AdminAddr))
	if c.Demo {
		for field, addr := range map[string]string{"HTTPAddr": c.HTTPAddr, "AdminAddr": c.AdminAddr} {
			if f, _ := reflect.TypeFor[Config]().FieldByName(field); validAddr(addr) && !loopback(addr) {
				faults = append(faults, &ConfigError{
					Variable: f.Tag.Get("env"), Reason: "the demo listens on loopback addresses alone, such as 127.0.0.1:8080",
				})
			}
		}
	}
	check("RedisURL", validRedisURL(c.RedisURL))
	check("RedisPoolSize", c.RedisPoolSize >= 0 && c.RedisPoolSize <= 10_000)
	check("RedisDialTimeout", c.RedisDialTimeout > 0)
	check("RedisReadTimeout", c.RedisReadTimeout > 0)
	check("RedisWriteTimeout", c.RedisWriteTimeout > 0)
	check("JWTLeeway", c.JWTLeeway >= 0 && c.JWTLeeway <= 5*time.Minute)
	check("Retention", c.Retention == 0 || c.Retention >= time.Second)
	check("IndexSweep", c.IndexSweep == 0 || c.IndexSweep >= time.Second)
	check("ReadHeaderTimeout", c.ReadHeaderTimeout > 0)
	check("ReadTimeout", c.ReadTimeout > 0)
	check("WriteTimeout", c.WriteTimeout > 0)
	check("IdleTimeout", c.IdleTimeout > 0)
	check("ShutdownGrace", c.ShutdownGrace > 0)
	check("LogLevel", c.LogLevel >= zapcore.DebugLevel && c.LogLevel <= zapcore.ErrorLevel)
	check("TraceEndpoint", c.TraceEndpoint == "" || telemetry.ValidTraceEndpoint(c.TraceEndpoint))
	check("TraceRatio", c.TraceRatio >= 0 && c.TraceRatio <= 1)
	check("WorkspaceLabels", c.WorkspaceLabels >= 1 && c.WorkspaceLabels <= 100_000)
	return faults
}

func validAddr(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == port
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func validRedisURL(url string) bool {
	rdb, err := redisjobs.Connect(redisjobs.ConnectOptions{URL: url})
	if err != nil {
		return false
	}
	return rdb.Close() == nil
}

// authFaults gives an error for each part of the authentication that is missing or does not go with another. A secret
// that is in a file is read here.
func (c *Config) authFaults() (faults []error) {
	switch {
	case bool(c.Demo) && (c.APIKeysFile != "" || c.usesJWT()):
		return []error{&ConfigError{
			Reason: "the demo makes keys of its own: unset RELAY_API_KEYS_FILE and RELAY_JWT_*, or RELAY_DEMO",
		}}
	case !bool(c.Demo) && c.APIKeysFile == "" && !c.usesJWT():
		return []error{&ConfigError{
			Reason: "nobody could be authenticated: set RELAY_API_KEYS_FILE (make a key with `relay apikey new`), " +
				"or RELAY_JWT_ALGORITHMS with RELAY_JWT_ISSUER and RELAY_JWT_AUDIENCE, or RELAY_DEMO=on to look around",
		}}
	case !c.usesJWT():
		return nil
	}
	if err := c.readJWTSecret(); err != nil {
		return []error{err}
	}
	variables := map[string]string{ //nolint:gosec // names, not values
		"Algorithms": "RELAY_JWT_ALGORITHMS", "Issuer": "RELAY_JWT_ISSUER", "Audience": "RELAY_JWT_AUDIENCE",
		"Leeway": "RELAY_JWT_LEEWAY", "Secret": "RELAY_JWT_SECRET", "JWKSURL": "RELAY_JWT_JWKS_URL",
		"JWKSFile": "RELAY_JWT_JWKS_FILE",
	}
	return eachOf(c.jwt().Validate(), func(err error) error {
		var wrong *jwtauth.ConfigError
		if errors.As(err, &wrong) {
			return &ConfigError{Variable: variables[wrong.Field], Reason: wrong.Problem}
		}
		return err
	})
}

// eachOf applies f to each of the errors that err joins.
func eachOf(err error, f func(error) error) (out []error) {
	switch e := err.(type) { //nolint:errorlint // takes apart what Join made
	case nil:
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			out = append(out, f(one))
		}
	default:
		out = append(out, f(err))
	}
	return out
}

// maxSecretFile bounds what is read where somebody named a wrong file.
const maxSecretFile = 64 << 10

func (c *Config) readJWTSecret() error {
	if c.JWTSecretFile == "" {
		return nil
	}
	if c.JWTSecret != "" {
		return &ConfigError{Variable: "RELAY_JWT_SECRET", Reason: "is set, and so is RELAY_JWT_SECRET_FILE: unset one"}
	}
	info, err := os.Stat(c.JWTSecretFile)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxSecretFile {
		return mustBe("JWTSecretFile")
	}
	content, err := os.ReadFile(c.JWTSecretFile)
	if err != nil {
		return mustBe("JWTSecretFile")
	}
	c.JWTSecret = strings.TrimRight(string(content), "\r\n")
	return nil
}

func (c *Config) jwt() jwtauth.Config {
	return jwtauth.Config{
		Algorithms: c.JWTAlgorithms, Issuer: c.JWTIssuer, Audience: c.JWTAudience, Leeway: c.JWTLeeway,
		Secret: c.JWTSecret, JWKSURL: c.JWTJWKSURL, JWKSFile: c.JWTJWKSFile,
	}
}

// usesJWT tells whether anything of JWT is set, the leeway aside, which has a default.
func (c *Config) usesJWT() bool {
	return len(c.JWTAlgorithms) > 0 || c.JWTIssuer+c.JWTAudience+c.JWTJWKSURL+c.JWTJWKSFile+c.JWTSecret+c.JWTSecretFile != ""
}
