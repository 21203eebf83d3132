// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Readiness tells whether the agent is ready.
type Readiness struct {
	// Check says what the agent still lacks; nothing if it is ready.
	Check func() []string
	// Synced is closed once the sources were applied.
	Synced <-chan struct{}
}

// Now returns a handler that answers at once, for whoever may ask: a wait would hold a connection. What it says is up
// to a second old.
func (r Readiness) Now() http.Handler {
	r.Check = Recent(r.Check)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, r.Check()) })
}

// Recent asks at most once a second, and repeats the answer in between: a look at every pin costs up to 0.3 s of CPU at
// 800 pods, and whoever reaches a port could have one made for each request.
func Recent[T any](ask func() T) func() T {
	var mu sync.Mutex
	var answer T
	var asked time.Time
	return func() T {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(asked) >= time.Second {
			answer, asked = ask(), time.Now()
		}
		return answer
	}
}

// maxWait is how long a request may wait for readiness.
const maxWait = 5 * time.Minute

// ServeHTTP answers 200 if the agent is ready and else 503, with a line for each thing that it lacks. The parameter
// wait is a duration ("10s") for which the answer waits if need be.
func (r Readiness) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	var wait time.Duration
	if text := request.FormValue("wait"); text != "" {
		var err error
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 || wait > maxWait {
			http.Error(w, fmt.Sprintf("wait=%q: give a duration of 0s to %s", text, maxWait), http.StatusBadRequest)
			return
		}
	}
	why := r.Check()
	if wait > 0 && len(why) > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-r.Synced:
		case <-timer.C:
		case <-request.Context().Done():
			return
		}
		why = r.Check()
	}
	answer(w, why)
}

func answer(w http.ResponseWriter, why []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(why) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, strings.Join(why, "\n"))
		return
	}
	fmt.Fprintln(w, "ready")
}
