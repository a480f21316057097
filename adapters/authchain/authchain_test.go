package authchain

import (
	"context"
	"errors"
	"testing"

	"github.com/golang/mock/gomock"
	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/access"
	"github.com/relay-jobs/relay/core/fault"
	"github.com/relay-jobs/relay/ports"
	"github.com/relay-jobs/relay/ports/portsmock"
)

func TestNewRefusesNothingToAsk(t *testing.T) {
	_, err := New()
	require.Error(t, err)
	_, err = New(portsmock.NewMockAuthProvider(gomock.NewController(t)), nil)
	require.Error(t, err)
}

func TestAuthenticate(t *testing.T) {
	const whoever = "abcdef"
	no := func(why string) error { return access.ErrUnproven(errors.New(why)) }
	down := fault.New(fault.Unavailable, fault.CodeAuthUnavailable, "down")
	alice, bob := access.Principal{Actor: "alice"}, access.Principal{Actor: "bob"}
	type answer struct {
		principal access.Principal
		err       error
	}
	for _, c := range []struct {
		name    string
		answers []answer // of the providers that are asked, in their order
		idle    int      // providers after them
		want    access.Principal
		err     error
		text    string
	}{
		{"the first proves it", []answer{{alice, nil}}, 1, alice, nil, ""},
		{"the second proves it", []answer{{err: no("a")}, {bob, nil}}, 1, bob, nil, ""},
		{
			"none proves it",
			[]answer{{err: no("a")}, {err: no("b")}},
			0,
			access.Principal{},
			nil,
			"Invalid authentication token: Invalid authentication token: a\nInvalid authentication token: b",
		},
		{"the first cannot say", []answer{{err: down}}, 1, access.Principal{}, down, ""},
		{"the second cannot say", []answer{{err: no("a")}, {err: down}}, 1, access.Principal{}, down, ""},
		{"a failure of no kind", []answer{{err: errors.ErrUnsupported}}, 1, access.Principal{}, errors.ErrUnsupported, ""},
		{"the caller gave up", []answer{{err: context.Canceled}}, 1, access.Principal{}, context.Canceled, ""},
		{
			"a failure's principal is not used",
			[]answer{{alice, no("a")}},
			0,
			access.Principal{},
			nil,
			"Invalid authentication token: Invalid authentication token: a",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctrl := gomock.NewController(t)
			defer ctrl.Finish()
			var providers []ports.AuthProvider
			for _, a := range c.answers {
				p := portsmock.NewMockAuthProvider(ctrl)
				p.EXPECT().Authenticate(t.Context(), whoever).Return(a.principal, a.err)
				providers = append(providers, p)
			}
			for range c.idle {
				providers = append(providers, portsmock.NewMockAuthProvider(ctrl))
			}
			chain, err := New(providers...)
			require.NoError(t, err)
			got, err := chain.Authenticate(t.Context(), whoever)
			require.Equal(t, c.want, got)
			switch {
			case c.err != nil:
				require.ErrorIs(t, err, c.err)
			case c.text != "":
				require.EqualError(t, err, c.text)
				require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
				require.Equal(t, fault.CodeInvalidToken, fault.CodeOf(err))
			default:
				require.NoError(t, err)
			}
		})
	}
}
