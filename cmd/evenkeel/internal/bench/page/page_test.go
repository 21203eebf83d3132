// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench"
)

func mustWrite(t *testing.T, change func(*bench.Document)) string {
	t.Helper()
	text, err := os.ReadFile("../testdata/document.json")
	if err != nil {
		t.Fatal(err)
	}
	var d bench.Document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	change(&d)
	var out bytes.Buffer
	if err := Write(&out, &d); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The page needs nothing else, shows every row and what is wrong with it, and its drawings are well formed.
func TestPage(t *testing.T) {
	html := mustWrite(t, func(*bench.Document) {})
	for _, want := range []string{"connect-rate-c1", "0.991", "0.985 … 0.996", "connect-ns", "not measured", "no pods",
		"prefers-color-scheme: dark", "evenkeel bench --only connect-rate-c1 --seed 42 --quick", "AMD EPYC"} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if found := regexp.MustCompile(`(?i)(src|href)=|url\(|<script|@import|https?:`).FindString(html); found != "" {
		t.Errorf("the page has %q: it is to need nothing else", found)
	}
	drawings := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(html, -1)
	if len(drawings) < 2 {
		t.Fatalf("%d drawings", len(drawings))
	}
	for _, drawing := range drawings {
		for decoder := xml.NewDecoder(strings.NewReader(drawing)); ; {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %.200s", err, drawing)
			}
		}
	}
}

// What comes from a document is text, whoever wrote it.
func TestPageEscapes(t *testing.T) {
	html := mustWrite(t, func(d *bench.Document) {
		d.Release = "<b>release"
		d.Rows[0].ID = "<b>row"
		d.Trials[0].Arms[1] = "<b>arm"
		d.Trials[0].Values["rate"]["<b>arm"] = d.Trials[0].Values["rate"]["evenkeel"]
		d.Problems[0].Reason = "<b>reason"
	})
	if strings.Contains(html, "<b>r") || strings.Contains(html, "<b>arm") {
		t.Error("text of the document is taken for HTML")
	}
}

func TestScale(t *testing.T) {
	s := scale{0.9, 1.1, 100, 300}
	for v, want := range map[float64]float64{0.9: 100, 1: 200, 1.1: 300, 0: 100, 9: 300} {
		if got := s.at(v); got < want-1e-6 || got > want+1e-6 {
			t.Errorf("%v is at %v, want %v", v, got, want)
		}
	}
	for _, s := range []scale{{0.9, 1.1, 0, 1}, {0, 3, 0, 1}, {0.4999, 1.2, 0, 1}} {
		ticks := s.ticks(7)
		if len(ticks) < 3 || len(ticks) > 9 {
			t.Errorf("%+v has %d ticks: %v", s, len(ticks), ticks)
		}
		for _, v := range ticks {
			if v < s.from-1e-9 || v > s.to+1e-9 {
				t.Errorf("%+v has a tick at %v", s, v)
			}
		}
	}
}
