// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"fortio.org/fortio/fhttp"
	"fortio.org/fortio/periodic"
	"fortio.org/log"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
)

// resolution of Fortio's histogram, in seconds. Its default of a millisecond makes every percentile below that a fable.
const resolution = 1e-5

// runFortio makes HTTP requests as fast as they are answered.
func runFortio(b load.Block) (load.Result, error) {
	log.SetLogLevelQuiet(log.Error)
	debug.SetGCPercent(100) // Fortio allocates; without collection the pages of fresh memory would be what is measured
	o := fhttp.HTTPRunnerOptions{
		RunnerOptions: periodic.RunnerOptions{
			QPS: -1, Duration: b.Duration, NumThreads: b.Connections, Resolution: resolution,
			Percentiles: []float64{50, 99}, Out: io.Discard,
		},
		HTTPOptions: fhttp.HTTPOptions{
			URL: fmt.Sprintf("http://%v/", b.To), DisableKeepAlive: b.Kind == load.HTTPNew, SequentialWarmup: true,
		},
	}
	r, err := fhttp.RunHTTPTest(&o)
	if err != nil {
		return load.Result{}, err
	}
	h := r.DurationHistogram
	if ok := r.RetCodes[http.StatusOK]; ok != h.Count || ok == 0 {
		return load.Result{}, fmt.Errorf("%d of %d requests were answered with status 200: %v", ok, h.Count, r.RetCodes)
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	result := load.Result{Operations: h.Count, Elapsed: r.ActualDuration, Mean: seconds(h.Avg)}
	for _, p := range h.Percentiles {
		switch p.Percentile {
		case 50:
			result.Median = seconds(p.Value)
		case 99:
			result.P99 = seconds(p.Value)
		}
	}
	return result, nil
}

// serveHTTP answers requests by Fortio's own echo handler.
func serveHTTP(at netip.AddrPort, ready func() error) error {
	log.SetLogLevelQuiet(log.Error)
	debug.SetGCPercent(100)
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	if err := ready(); err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(fhttp.EchoHandler), ReadHeaderTimeout: time.Minute}
	return server.Serve(listener)
}
