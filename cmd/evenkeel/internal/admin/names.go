// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
)

// MaxNames is how many names one request may ask for.
const MaxNames = 512

// names answers what numbers of the kernel stand for: what is gone by now is left out.
func names(v *report.View, r *http.Request) (*report.Names, error) {
	if err := r.ParseForm(); err != nil {
		return nil, &badRequest{err}
	}
	services, endpoints := r.Form["service"], r.Form["endpoint"]
	if n := len(services) + len(endpoints); n > MaxNames {
		return nil, &badRequest{fmt.Errorf("%d names asked for: at most %d in one request", n, MaxNames)}
	}
	answer := report.NewNames()
	for _, ref := range services {
		index, incarnation, err := parseRef(ref)
		if err != nil {
			return nil, &badRequest{fmt.Errorf("service %w", err)}
		}
		if name, _, ok := v.Engine.ServiceAt(index, incarnation); ok {
			answer.Services[ref] = name
		}
	}
	for _, ref := range endpoints {
		index, incarnation, err := parseRef(ref)
		if err != nil {
			return nil, &badRequest{fmt.Errorf("endpoint %w", err)}
		}
		if endpoint, ok := v.Engine.EndpointAt(bpf.EndpointRef(index, incarnation)); ok {
			answer.Endpoints[ref] = endpoint.Workload
		}
	}
	return answer, nil
}

// parseRef reads INDEX.INCARNATION, both unsigned 32-bit numbers in decimal.
func parseRef(ref string) (index, incarnation uint32, err error) {
	left, right, found := strings.Cut(ref, ".")
	i, err := strconv.ParseUint(left, 10, 32)
	if err != nil || !found {
		return 0, 0, fmt.Errorf("%q: write INDEX.INCARNATION", ref)
	}
	n, err := strconv.ParseUint(right, 10, 32)
	if err != nil {
		return 0, 0, fmt.Errorf("%q: write INDEX.INCARNATION", ref)
	}
	return uint32(i), uint32(n), nil
}
