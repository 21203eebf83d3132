// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/doctor"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/upgrade"
)

// documents are all that -o json prints, empty.
func documents() []any {
	var all []any
	for _, d := range described {
		all = append(all, d.document)
	}
	return all
}

// TestEmptyListsAreThere: a list that is empty is [], never null and never absent, in every document and at every depth.
func TestEmptyListsAreThere(t *testing.T) {
	for _, d := range documents() {
		t.Run(reflect.TypeOf(d).String(), func(t *testing.T) {
			neverOmitted(t, reflect.TypeOf(d), "")
			for range 4 { // each round adds an element to every list that there is
				text := printed(t, "json", d, nil)
				if bytes.Contains(text, []byte("null")) {
					t.Errorf("printed as\n%s", text)
				}
				grown := reflect.New(reflect.TypeOf(d))
				grown.Elem().Set(reflect.ValueOf(d))
				grow(grown.Elem())
				d = grown.Elem().Interface()
			}
		})
	}
}

// neverOmitted fails for a list or an object of names that is left out when it is empty.
func neverOmitted(t *testing.T, of reflect.Type, path string) {
	if ownForm(of) {
		return
	}
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		neverOmitted(t, of.Elem(), path)
	case reflect.Map:
		if k := of.Elem().Kind(); k == reflect.Struct || k == reflect.Slice || k == reflect.Pointer {
			t.Errorf("%s: report.Whole does not look into objects of %s", path, of.Elem())
		}
	case reflect.Struct:
		for i := range of.NumField() {
			f := of.Field(i)
			if !f.IsExported() {
				continue
			}
			k, tag := f.Type.Kind(), f.Tag.Get("json")
			if (k == reflect.Slice || k == reflect.Map) && strings.Contains(tag, ",omit") {
				t.Errorf("%s.%s is left out where it is empty", path, f.Name)
			}
			neverOmitted(t, f.Type, path+"."+f.Name)
		}
	}
}

func ownForm(t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

// grow gives every list that is empty one element, and every pointer something to point to.
func grow(v reflect.Value) {
	if ownForm(v.Type()) || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		grow(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			grow(v.Field(i))
		}
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			return
		}
		grow(v.Index(0))
	}
}

// TestBatchAnswersAreWhole: the lines of a batch keep to the same rule.
func TestBatchAnswersAreWhole(t *testing.T) {
	var out bytes.Buffer
	b := &batch{out: &out, do: func(context.Context, enrol.Options, enrol.Pod) (answer, error) {
		return answer{Pod: "a/b"}, nil
	}}
	if err := b.run(t.Context(), strings.NewReader(`{"netns":"/x","pod":"a/b"}`)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"addresses":[],"ignoredAddresses":[]`) {
		t.Errorf("%s", out.String())
	}
}

// described are the documents that docs/CLI.md describes, each by the beginnings of the rows, or the heading of the
// table, where that is. values are what stands in backticks there and is no member.
var described = []struct {
	document any
	at       []string
	values   string
}{
	{report.Status{}, []string{"### status", workloadRow}, "bridge reverse"},
	{report.Services{}, []string{"| `services` | `name`", endpointRow}, ""},
	{report.Endpoints{}, []string{endpointRow}, ""},
	{report.Workloads{}, []string{workloadRow}, ""},
	{report.Flows{}, []string{"| `flows` | `client`"}, ""},
	{report.Names{}, []string{"| `names` (of"}, ""},
	{report.Explanation{}, []string{"### explain", endpointRow}, "selected refused passed unknown refused_no_port"},
	{doctor.Report{}, []string{"| `doctor` | `ok`"}, ""},
	{versionDocument{}, []string{"| `version` | `release`"}, ""},
	{exerciseDocument{}, []string{"| `upgrade exercise` | `flips`"}, ""},
	{planDocument{Plan: &upgrade.Plan{}}, []string{planRow},
		"next floor word bridge none kept migrated rebuilt created removed"},
	{applyDocument{}, []string{"| `upgrade apply`, `rollback`, `retire` |", planRow},
		"rollback retire next floor word bridge none kept migrated rebuilt created removed"},
	{upgradeStatusDocument{}, []string{"| `upgrade status` |", "| `word` |", "| `damages` |"}, "bridge reverse status"},
	{historyDocument{}, []string{"| `upgrade history` |"}, "install upgrade rollback canary withdraw bridge retire"},
	{verifyDocument{}, []string{"| `upgrade verify` |", "| `damages` |"}, "status"},
	{labList{}, []string{"| `sim ls` |", "An `owner`"}, "up halfway"},
	{netsim.Info{}, []string{"| `sim inspect` |", "An `owner`"}, "up"},
	{answer{}, []string{"| `enrol --batch -`"}, "error"},
}

const (
	workloadRow = "| `workloads` | `name`"
	endpointRow = "| `endpoints` | `service`"
	planRow     = "| `upgrade plan` |"
)

// TestDocumentsAreDescribed: every member of every document is in docs/CLI.md where that document is, and no other.
func TestDocumentsAreDescribed(t *testing.T) {
	text, err := os.ReadFile("../../docs/CLI.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range described {
		t.Run(reflect.TypeOf(d.document).String(), func(t *testing.T) {
			has, said := map[string]bool{}, map[string]bool{}
			membersOf(reflect.TypeOf(d.document), has)
			said["version"] = has["version"] // the page says it of all of them at once
			for _, at := range d.at {
				row, names := backticked(t, string(text), at)
				for _, name := range names {
					said[name] = true
				}
				if has[row] { // a document with the name of its one list
					said[row] = true
				}
			}
			for name := range has {
				if !said[name] {
					t.Errorf("`%s` is printed, and docs/CLI.md does not say so", name)
				}
			}
			for name := range said {
				if said[name] && !has[name] && !slices.Contains(strings.Fields(d.values), name) {
					t.Errorf("docs/CLI.md has `%s`, which is not printed", name)
				}
			}
		})
	}
}

// backticked are the words in backticks of the part of a page that begins with at: a row without its first cell, whose
// word comes first, or what is below a heading.
func backticked(t *testing.T, page, at string) (row string, names []string) {
	t.Helper()
	_, part, found := strings.Cut("\n"+page, "\n"+at)
	if !found || strings.Contains(part, "\n"+at) {
		t.Fatalf("%q does not begin exactly one part of docs/CLI.md", at)
	}
	switch {
	case strings.HasPrefix(at, "#"):
		part, _, _ = strings.Cut(part, "\n#")
	case strings.HasPrefix(at, "|"):
		part, _, _ = strings.Cut(at+part, "\n")
		cells := strings.SplitN(part, "|", 3)
		row, part = strings.Trim(cells[1], " `"), cells[2]
	default:
		part, _, _ = strings.Cut(at+part, "\n\n")
	}
	for _, m := range regexp.MustCompile("`([A-Za-z_]+)`").FindAllStringSubmatch(part, -1) {
		names = append(names, m[1])
	}
	return row, names
}

// membersOf adds the names of all members of a type, at every depth.
func membersOf(of reflect.Type, names map[string]bool) {
	if ownForm(of) {
		return
	}
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		membersOf(of.Elem(), names)
	case reflect.Struct:
		for i := range of.NumField() {
			f := of.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() && !f.Anonymous || name == "-" {
				continue
			}
			if name != "" {
				names[name] = true
			}
			membersOf(f.Type, names)
		}
	}
}
