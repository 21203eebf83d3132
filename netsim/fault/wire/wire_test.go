// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	for _, i := range []Impairment{
		{Drop: DropAll}, {Drop: DropHalf, Seed: 1}, {Loss: 0.5}, {Loss: 1}, {Delay: time.Millisecond}, {Jitter: 1},
		{Drop: DropAll, Period: 2, Down: 1},
	} {
		if err := i.Validate(); err != nil {
			t.Errorf("%+v: %v", i, err)
		}
	}
	for _, i := range []Impairment{
		{}, {Seed: 7}, {Drop: "some"}, {Loss: -0.1}, {Loss: 1.1}, {Loss: math.NaN()}, {Delay: -1},
		{Drop: DropAll, Period: 1, Down: 2}, {Loss: 0.1, Period: 2, Down: 1},
	} {
		if err := i.Validate(); err == nil {
			t.Errorf("%+v is taken", i)
		}
	}
}

func TestImpairmentText(t *testing.T) {
	i := Impairment{Drop: DropAll, Period: 3 * time.Second, Down: time.Second, Loss: 0.1, Delay: 20 * time.Millisecond,
		Jitter: 5 * time.Millisecond, Seed: 7}
	if got, want := i.String(), "drop=all down=1s of 3s loss=0.1 delay=20ms jitter=5ms seed=7"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestBackend(t *testing.T) {
	for want, i := range map[string]Impairment{"bpf": {Loss: 0.1}, "bpf+relay": {Loss: 0.1, Jitter: 1}} {
		if got := i.Backend(); got != want {
			t.Errorf("%+v: %s, want %s", i, got, want)
		}
	}
}

// What cannot be done is reported to whoever waits for the beginning.
func TestRunReportsFailure(t *testing.T) {
	var out strings.Builder
	c := Config{Ends: []End{{Netns: "/proc/self/ns/nothing", Link: "x"}}, Impairment: Impairment{Drop: DropAll}}
	if err := Run(context.Background(), c, strings.NewReader(""), &out); err == nil {
		t.Error("no error")
	}
	if !strings.Contains(out.String(), `"error":"spoil x in`) {
		t.Errorf("it says %q", out.String())
	}
}
