package app

import (
	"time"

	"go.uber.org/fx"
	"go.uber.org/zap"

	"github.com/relay-jobs/relay/adapters/apikey"
	"github.com/relay-jobs/relay/adapters/authchain"
	"github.com/relay-jobs/relay/adapters/jwtauth"
	"github.com/relay-jobs/relay/ports"
)

// authentication is what proves credentials, and what readiness asks about it.
type authentication struct {
	fx.Out

	Provider ports.AuthProvider
	Checks   []ports.HealthCheck
}

// authenticate opens what is configured. Load made sure that something is.
func authenticate(lc fx.Lifecycle, c Config, d *demo, log *zap.Logger) (authentication, error) {
	var (
		out       authentication
		providers []ports.AuthProvider
	)
	if d != nil {
		keys, err := apikey.Static(time.Now, d.entries()...)
		if err != nil {
			return authentication{}, err //nolint:wrapcheck // a defect, reported as it is
		}
		providers = append(providers, keys)
	}
	if c.APIKeysFile != "" {
		keys, err := apikey.Open(c.APIKeysFile, log, time.Now)
		if err != nil {
			return authentication{}, &ConfigError{Variable: "RELAY_API_KEYS_FILE", Reason: err.Error()}
		}
		lc.Append(fx.StopHook(keys.Close))
		providers = append(providers, keys)
	}
	if c.usesJWT() {
		tokens, err := jwtauth.Open(c.jwt(), log, time.Now)
		if err != nil {
			return authentication{}, &ConfigError{Variable: "RELAY_JWT_JWKS_FILE", Reason: err.Error()}
		}
		lc.Append(fx.StopHook(tokens.Close))
		providers = append(providers, tokens)
		out.Checks = append(out.Checks, tokens)
	}
	chain, err := authchain.New(providers...)
	if err != nil {
		return authentication{}, err //nolint:wrapcheck // a defect, reported as it is
	}
	out.Provider = chain
	return out, nil
}
