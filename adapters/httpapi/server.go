package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// ServerConfig bounds what one connection may take. Every field is required.
type ServerConfig struct {
	ReadHeaderTimeout time.Duration
	ReadTimeout       time.Duration // the whole request, body included
	WriteTimeout      time.Duration // from the end of the header to the end of the answer
	IdleTimeout       time.Duration
	MaxHeaderBytes    int // request line included: a path with a long id and a cursor must fit
	Log               *zap.Logger
}

// Server serves one handler on one listener.
type Server struct {
	http   *http.Server
	cancel context.CancelFunc
}

// NewServer builds a Server. Requests run in a context of its own, which ends only when Shutdown runs out of time.
func NewServer(handler http.Handler, cfg ServerConfig) (*Server, error) {
	errorLog, err := zap.NewStdLogAt(cfg.Log, zap.DebugLevel) // net/http's own lines: handshakes, broken requests
	if err != nil {
		return nil, fmt.Errorf("log of the HTTP server: %w", err)
	}
	base, cancel := context.WithCancel(context.Background())
	return &Server{cancel: cancel, http: &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            cfg.ReadHeaderTimeout,
		ReadTimeout:                  cfg.ReadTimeout,
		WriteTimeout:                 cfg.WriteTimeout,
		IdleTimeout:                  cfg.IdleTimeout,
		MaxHeaderBytes:               cfg.MaxHeaderBytes,
		ErrorLog:                     errorLog,
		BaseContext:                  func(net.Listener) context.Context { return base },
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is no route, like any other path that is none
	}}, nil
}

// Serve answers on l, which it closes, until Shutdown is called; that is no error.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// Shutdown accepts nothing more and waits for the requests that run. When ctx ends first, their connections are closed and
// then their contexts canceled, so that none who is cut off is answered, and the error says so.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return fmt.Errorf("requests were cut off: %w", errors.Join(err, s.http.Close()))
	}
	return nil
}
