// Package authchain asks several providers for the proof of one credential.
package authchain

import (
	"context"
	"errors"
	"slices"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/ports"
)

// Chain is a ports.AuthProvider that tries others in their order.
type Chain struct {
	providers []ports.AuthProvider
}

// New refuses an empty chain, which would refuse everybody.
func New(providers ...ports.AuthProvider) (*Chain, error) {
	if len(providers) == 0 || slices.Contains(providers, nil) {
		return nil, errors.New("an authentication chain needs providers, and none of them nil")
	}
	return &Chain{providers: slices.Clone(providers)}, nil
}

// Authenticate returns the first proof. A provider that finds none passes the credential on to the next; any other
// failure ends the search, since what the provider would have said is not known.
func (c *Chain) Authenticate(ctx context.Context, credential string) (access.Principal, error) {
	var reasons []error
	for _, provider := range c.providers {
		principal, err := provider.Authenticate(ctx, credential)
		if err == nil {
			return principal, nil
		}
		if fault.KindOf(err) != fault.Unauthenticated {
			return access.Principal{}, err //nolint:wrapcheck // already a fault
		}
		reasons = append(reasons, err)
	}
	return access.Principal{}, access.ErrUnproven(errors.Join(reasons...))
}
