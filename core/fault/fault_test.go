package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/relay-jobs/relay/core/fault"
)

func TestKindOf(t *testing.T) {
	notFound := fault.New(fault.NotFound, fault.CodeJobNotFound, "Job not found")
	for name, c := range map[string]struct {
		err  error
		kind fault.Kind
		code fault.Code
	}{
		"itself":         {notFound, fault.NotFound, fault.CodeJobNotFound},
		"wrapped by fmt": {fmt.Errorf("get: %w", notFound), fault.NotFound, fault.CodeJobNotFound},
		"joined":         {errors.Join(io.EOF, notFound), fault.NotFound, fault.CodeJobNotFound},
		"unclassified":   {io.EOF, fault.Internal, fault.CodeInternal},
		"none":           {nil, fault.Internal, fault.CodeInternal},
		"canceled":       {fmt.Errorf("get: %w", context.Canceled), fault.Canceled, fault.CodeInternal},
		"out of time":    {fmt.Errorf("get: %w", context.DeadlineExceeded), fault.Timeout, fault.CodeInternal},
		"without a code": {&fault.Error{Kind: fault.Conflict, Msg: "no"}, fault.Conflict, fault.CodeInternal},
		"zero":           {&fault.Error{}, fault.Internal, fault.CodeInternal},
		"the outer rules": {
			fault.Wrap(notFound, fault.Internal, fault.CodeRecordInvalid, "no"),
			fault.Internal, fault.CodeRecordInvalid,
		},
		"classified over the context": {
			fault.Wrap(context.Canceled, fault.Unavailable, fault.CodeStorageUnavailable, "no"),
			fault.Unavailable, fault.CodeStorageUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.kind, fault.KindOf(c.err))
			require.Equal(t, c.code, fault.CodeOf(c.err))
		})
	}
}

func TestWrapKeepsTheCauseForLogsAlone(t *testing.T) {
	err := fault.Wrap(io.ErrUnexpectedEOF, fault.Unavailable, fault.CodeStorageUnavailable, "The storage did not answer")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "The storage did not answer", err.Msg)
	require.Equal(t, "The storage did not answer: unexpected EOF", err.Error())
	require.NoError(t, fault.New(fault.Invalid, fault.CodeInvalidParameter, "no").Unwrap())
}

func TestBadInputNamesItsParts(t *testing.T) {
	parts := []fault.Violation{{Pointer: "/params", Detail: "is no object"}, {Parameter: "limit", Detail: "is no number"}}
	err := fault.BadInput(fault.CodeInvalidParameter, "Invalid request", parts...)
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	require.Equal(t, parts, err.Violations)

	var e *fault.Error
	require.ErrorAs(t, fmt.Errorf("execute: %w", err), &e)
	require.Equal(t, parts, e.Violations)
}

func TestKindNames(t *testing.T) {
	names := map[fault.Kind]string{
		fault.Internal: "internal", fault.Invalid: "invalid", fault.Unauthenticated: "unauthenticated",
		fault.Forbidden: "forbidden", fault.NotFound: "not_found", fault.Conflict: "conflict",
		fault.Mismatch: "mismatch", fault.TooLarge: "too_large", fault.Unavailable: "unavailable",
		fault.Canceled: "canceled", fault.Timeout: "timeout",
	}
	for kind, name := range names {
		require.Equal(t, name, kind.String())
	}
	require.Equal(t, "internal", fault.Kind(200).String(), "an unknown kind is not mistaken for a harmless one")
	require.Len(t, names, int(fault.Timeout)+1)
	require.Equal(t, "internal", (fault.Timeout + 1).String(), "the table above holds every kind")
}
