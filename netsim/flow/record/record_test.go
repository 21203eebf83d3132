// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

func TestLinesSurvive(t *testing.T) {
	lines := []any{
		&Phase{Time: 1, Name: "kill", Limit: LimitUpgrade}, &Flow{ID: 1 << 50, Name: "a", Must: MustPass},
		&Window{Flow: 1 << 50, From: 1, To: 2, Sent: 3, Received: 4, Worst: -5}, &Late{Flow: 1 << 50, Due: 4}, &Blind{Flow: 1 << 50, Role: "client"},
		&Stall{Role: "server", From: 1, To: 2},
		&Standstill{Processor: 1, From: 1, To: 2},
		&Break{Flow: 1 << 50, Reason: Lost, Detail: "a \"quoted\"\nline"},
		&Done{Flow: 1 << 50, TCP: &wire.TCP{State: "established"}, Histogram: []uint64{1},
			Outcomes: map[string]uint64{"x": 1}},
	}
	var b bytes.Buffer
	w := NewWriter(&b, "client", "fifo")
	for _, line := range lines {
		w.Write(line)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	var got []any
	if err := Read(&b, "b", func(line any) error { got = append(got, line); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lines, got[1:len(got)-1]); diff != "" {
		t.Error(diff)
	}
	if end, is := got[len(got)-1].(*End); !is || end.User+end.System <= 0 {
		t.Errorf("end: %+v", got[len(got)-1])
	}
}

// The clock is the kernel's, in every process: between two of its readings.
func TestNowIsTheKernelsClock(t *testing.T) {
	for range 1000 {
		before := monotonic()
		now := Now()
		if after := monotonic(); now < before-1000 || now > after+1000 {
			t.Fatalf("%d is not within %d and %d", now, before, after)
		}
	}
}

func TestBadRecordings(t *testing.T) {
	start := `{"start":{"version":1,"time":1,"wall":"2026-01-01T00:00:00Z","boot":"b","role":"client","pid":1}}` + "\n"
	flow := `{"flow":{"time":1,"id":1,"name":"a","kind":"trickle","to":"x","period":1,"first":1}}` + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"nothing":               {"", "no flow"},
		"no flows":              {start, "no flow"},
		"not JSON":              {start + "x\n", "f:2: parse line"},
		"no start":              {flow, "f:1: a recording begins with"},
		"an unknown type":       {start + `{"x":{}}` + "\n", `f:2: parse line: unknown type "x"`},
		"an unknown field":      {start + `{"late":{"x":1}}` + "\n", `f:2: parse line of type late: json: unknown field "x"`},
		"two keys":              {start + `{"late":{},"end":{}}` + "\n", "it has 2"},
		"a later format":        {strings.Replace(start, `"version":1`, `"version":2,"new":3`, 1), "it has format 2"},
		"a flow never declared": {start + `{"late":{"flow":3}}` + "\n", "flow 3 was not declared"},
		"a flow declared twice": {start + flow + flow, "f:3: flow 1 is declared twice"},
		"two boots": {start + strings.Replace(start, `"boot":"b"`, `"boot":"c"`, 1) + flow,
			"f:2: it is of another boot"},
	} {
		_, err := Judge(strings.NewReader(c.text), "f")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := JudgeFiles(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A writer that was killed leaves half a line; what came before counts.
func TestHalfALineIsLeftOut(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b, "client", "")
	w.Write(&Flow{ID: 1, Name: "a"})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	b.WriteString(`{"late":{"fl`)
	r, err := Judge(&b, "b")
	if err != nil || r.Flows.Broken != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestAFullDiskIsReported(t *testing.T) {
	w := NewWriter(full{}, "client", "")
	w.Write(&Flow{ID: 1})
	if err := w.Finish(); err == nil {
		t.Error("no error")
	}
}

func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"start":{"version":1,"time":1,"wall":"2026-01-01T00:00:00Z","boot":"b","role":"client","pid":1}}
{"flow":{"time":1,"id":1,"name":"a","kind":"trickle","to":"x","period":1000000,"first":1}}
{"phase":{"time":1,"name":"before","fault_free":true}}
{"window":{"flow":1,"from":2,"to":5,"sent":1,"received":1,"worst":1}}
{"phase":{"time":9,"name":"kill"}}
{"late":{"flow":1,"sequence":1,"due":3,"received":20,"lateness":17}}
{"done":{"flow":1,"time":100,"stop":100,"sent":3,"received":3,"breaks":0}}
`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := Judge(bytes.NewReader(text), "fuzz"); err == nil && len(r.Details) == 0 {
			t.Error("a verdict about nothing")
		}
	})
}
