// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
)

// What one client may cost.
const (
	maxHeader    = 64 << 10 // of a request, in bytes; longest is that for names
	readTime     = 10 * time.Second
	writeTime    = maxWait + 30*time.Second // a wait for readiness, and the answer
	shutdownTime = time.Second
)

// Serve answers until ctx ends, and then returns nil. It closes the listener.
func Serve(ctx context.Context, l net.Listener, v *report.View, ready Readiness) error {
	return ServeHTTP(ctx, l, &http.Server{
		Handler: Handler(v, ready), ConnContext: withPeer,
		ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: readTime, MaxHeaderBytes: maxHeader,
	})
}

// ServeHTTP runs a server until ctx ends, and then returns nil. Requests that are being answered have a moment to end.
func ServeHTTP(ctx context.Context, l net.Listener, server *http.Server) error {
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		_ = server.Close() // requests that outlast the time are dropped
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Handler answers requests about v:
//
//	GET /v1/status, /v1/services, /v1/endpoints, /v1/workloads
//	GET /v1/names?service=INDEX.INCARNATION&endpoint=INDEX.INCARNATION  both any number of times, at most MaxNames
//	GET /v1/explain?workload=NS/NAME&service=...&port=80&protocol=tcp
//	GET /readyz?wait=10s
//
// A request with the header Evenkeel-Dir is about the data plane that is pinned there; about another than v it is
// refused with 421. Errors are {"error": "..."} with a status of 400 and above.
func Handler(v *report.View, ready Readiness) http.Handler {
	mux := http.NewServeMux()
	short, long, taking := make(turns, makers), make(turns, makers), make(turns, takers)
	text := func(r *http.Request, making turns, answer func(*http.Request) (any, error)) ([]byte, error) {
		leave, err := making.take(r.Context())
		if err != nil {
			return nil, err
		}
		defer leave()
		document, err := answer(r)
		if err != nil {
			return nil, err
		}
		return json.Marshal(report.Whole(document))
	}
	get := func(path string, answer func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			document, err := text(r, short, answer)
			write(w, document, err)
		})
	}
	getLong := func(path string, answer func(*http.Request) (any, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			leave, err := taking.take(r.Context())
			if err != nil {
				write(w, nil, err)
				return
			}
			defer leave()
			document, err := text(r, long, answer)
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(takeTime)) // a test's recorder has none
			write(w, document, err)
		})
	}
	get("/v1/status", func(*http.Request) (any, error) { return report.Collect(v.Dir, v) })
	getLong("/v1/services", func(*http.Request) (any, error) { return v.Services(), nil })
	getLong("/v1/endpoints", func(*http.Request) (any, error) { return v.Endpoints(), nil })
	getLong("/v1/workloads", func(*http.Request) (any, error) { return v.WorkloadList() })
	get("/v1/names", func(r *http.Request) (any, error) { return names(v, r) })
	get("/v1/explain", func(r *http.Request) (any, error) {
		q, err := report.ParseQuestion(r.FormValue("workload"), r.FormValue("service"), r.FormValue("port"),
			r.FormValue("protocol"))
		if err != nil {
			return nil, &badRequest{err}
		}
		return v.Explain(q)
	})
	mux.Handle("GET /readyz", ready)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, r.Method+": only GET is answered")
			return
		}
		refuse(w, http.StatusNotFound, r.URL.Path+": there is /v1/status, /v1/services, /v1/endpoints, /v1/workloads, "+
			"/v1/names, /v1/explain and /readyz")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !allowed(r.Context()) {
			refuse(w, http.StatusForbidden, "only root and the agent's own user are answered")
			return
		}
		if dir := r.Header.Get(dirHeader); dir != "" && dir != filepath.Clean(v.Dir) {
			refuse(w, http.StatusMisdirectedRequest, "this agent serves "+v.Dir)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 0) // no request has one
		mux.ServeHTTP(w, r)
	})
}

// dirHeader names the data plane that a request is about.
const dirHeader = "Evenkeel-Dir"

// badRequest is an error of the one who asked.
type badRequest struct{ error }

func (e *badRequest) Unwrap() error { return e.error }

// failure is the document of an error.
type failure struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(failure{why}) // the client has gone: nobody is left to tell
}

func write(w http.ResponseWriter, document []byte, err error) {
	if err != nil {
		code := http.StatusInternalServerError
		var bad *badRequest
		var busy *busyError
		switch {
		case errors.As(err, &bad):
			code = http.StatusBadRequest
		case errors.As(err, &busy):
			code = http.StatusServiceUnavailable
		}
		refuse(w, code, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(document, '\n')) // if the client has gone nobody is left to tell
}
