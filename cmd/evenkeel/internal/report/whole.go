// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding"
	"encoding/json"
	"reflect"
)

// Whole returns a document as it is to be encoded: with [] for every list and {} for every object that is empty, which
// encoding/json would write as null. It may fill in such fields of what the document refers to, so nobody else may use
// that meanwhile.
func Whole(document any) any {
	v := reflect.ValueOf(document)
	if v.Kind() != reflect.Pointer {
		p := reflect.New(v.Type())
		p.Elem().Set(v)
		v = p
	}
	whole(v)
	return v.Interface()
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// encodesItself is whether the fields of a type are none of ours: times and addresses.
func encodesItself(t reflect.Type) bool {
	return t.Implements(marshaler) || t.Implements(textMarshaler)
}

func whole(v reflect.Value) {
	t := v.Type()
	if encodesItself(t) {
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			whole(v.Elem())
		}
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				whole(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			v.Set(reflect.MakeSlice(t, 0, 0))
		}
		fallthrough
	case reflect.Array:
		if t.Elem().Kind() == reflect.Struct || t.Elem().Kind() == reflect.Pointer {
			for i := range v.Len() {
				whole(v.Index(i))
			}
		}
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(t))
		}
	}
}
