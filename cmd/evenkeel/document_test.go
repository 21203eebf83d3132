// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"reflect"
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
	return []any{
		report.Status{}, report.Services{}, report.Endpoints{}, report.Workloads{}, report.Flows{}, report.Names{},
		report.Explanation{}, doctor.Report{}, versionDocument{}, exerciseDocument{},
		planDocument{Plan: &upgrade.Plan{}}, applyDocument{}, upgradeStatusDocument{}, historyDocument{}, verifyDocument{}, labList{}, netsim.Info{}, answer{},
	}
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
