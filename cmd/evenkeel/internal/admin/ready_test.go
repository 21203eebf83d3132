// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestReadiness(t *testing.T) {
	lacks := []string{"hook tcx is not attached"}
	synced := make(chan struct{})
	r := Readiness{Synced: synced, Check: func() []string {
		select {
		case <-synced:
			return nil
		default:
			return lacks
		}
	}}
	get := func(query string) (int, string) {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz"+query, nil))
		return w.Code, w.Body.String()
	}
	if code, said := get(""); code != http.StatusServiceUnavailable || said != lacks[0]+"\n" {
		t.Errorf("%d %q", code, said)
	}
	if code, _ := get("?wait=1ms"); code != http.StatusServiceUnavailable {
		t.Errorf("after a wait in vain: %d", code)
	}
	for _, wrong := range []string{"soon", "-1s", "10h"} {
		if code, _ := get("?wait=" + wrong); code != http.StatusBadRequest {
			t.Errorf("wait=%s: %d", wrong, code)
		}
	}
	answered := make(chan int)
	go func() {
		code, _ := get("?wait=1m")
		answered <- code
	}()
	select {
	case code := <-answered:
		t.Errorf("it did not wait: %d", code)
	case <-time.After(20 * time.Millisecond):
	}
	close(synced)
	if code := <-answered; code != http.StatusOK {
		t.Errorf("after a wait: %d", code)
	}
	if code, _ := get("?wait=soon"); code != http.StatusBadRequest {
		t.Errorf("a wrong wait while it is ready: %d", code)
	}
}
