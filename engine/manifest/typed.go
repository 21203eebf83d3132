// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// typer fills typed objects from nodes by the json tags of their fields, as encoding/json would, but strictly: a
// field that the type does not have, a key that comes twice and a value of the wrong type are errors. It remembers
// what it has learned about a type; one typer serves one call of Decode.
type typer struct {
	types map[reflect.Type]*typeInfo
	// strings holds one copy of each short string. Objects live long: they must not hold on to the text of the whole
	// file, and names, zones and labels repeat thousands of times.
	strings map[string]string
}

type typeInfo struct {
	// custom types read their own JSON: times, quantities, IntOrString.
	custom bool
	// fields maps a json name to the field's index path.
	fields map[string][]int
}

// internUpTo is the length of string up to which repetition is likely: Kubernetes names have at most 63 bytes.
const internUpTo = 64

func newTyper() *typer {
	return &typer{types: map[reflect.Type]*typeInfo{}, strings: map[string]string{}}
}

func (t *typer) intern(s string) string {
	if len(s) > internUpTo {
		return strings.Clone(s)
	}
	if known, ok := t.strings[s]; ok {
		return known
	}
	s = strings.Clone(s)
	t.strings[s] = s
	return s
}

func (t *typer) info(of reflect.Type) *typeInfo {
	if i, ok := t.types[of]; ok {
		return i
	}
	i := &typeInfo{custom: reflect.PointerTo(of).Implements(reflect.TypeFor[json.Unmarshaler]())}
	if of.Kind() == reflect.Struct && !i.custom {
		i.fields = map[string][]int{}
		addFields(i.fields, of, nil)
	}
	t.types[of] = i
	return i
}

func addFields(fields map[string][]int, of reflect.Type, path []int) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		at := append(slices.Clone(path), i)
		switch {
		case f.Anonymous && name == "":
			addFields(fields, f.Type, at)
		case f.IsExported() && name != "" && name != "-":
			fields[name] = at
		}
	}
}

// fill sets v from n.
func (t *typer) fill(n *node, v reflect.Value) *Error {
	if n.isNull() {
		return nil // as in JSON: the zero value
	}
	if t.info(v.Type()).custom {
		return t.custom(n, v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return t.fill(n, v.Elem())
	case reflect.Struct:
		return t.fillStruct(n, v)
	case reflect.Slice:
		return t.fillSlice(n, v)
	case reflect.Map:
		return t.fillMap(n, v)
	case reflect.String:
		return t.fillString(n, v)
	case reflect.Bool:
		if n.kind != scalar || n.means() != isBool && n.means() != isWord {
			return refuse(n, "needs true or false, not %s", n.describe())
		}
		v.SetBool(n.truth())
		return nil
	case reflect.Int32, reflect.Int64:
		return fillInt(n, v)
	}
	return t.custom(n, v)
}

func (t *typer) fillStruct(n *node, v reflect.Value) *Error {
	if n.kind != mapping {
		return refuse(n, "needs a mapping, not %s", n.describe())
	}
	fields := t.info(v.Type()).fields
	for i := 0; i < len(n.items); i += 2 {
		key := &n.items[i]
		at, ok := fields[key.text]
		if !ok {
			return refuse(key, "unknown field%s", suggest(fields, key.text)).within(key.text)
		}
		if twice(n, i) {
			return refuse(key, "the field is there twice").within(key.text)
		}
		if err := t.fill(&n.items[i+1], v.FieldByIndex(at)); err != nil {
			return err.within(key.text)
		}
	}
	return nil
}

// twice tells whether the key at index i was there before. Known fields are few, so looking back is cheap: a document
// cannot have more known keys before the first repetition than its type has fields.
func twice(n *node, i int) bool {
	for j := 0; j < i; j += 2 {
		if n.items[j].text == n.items[i].text {
			return true
		}
	}
	return false
}

// suggest names the field that differs in upper and lower case only: by far the commonest mistake.
func suggest(fields map[string][]int, key string) string {
	for name := range fields {
		if strings.EqualFold(name, key) {
			return ", did you mean " + name + "?"
		}
	}
	return ""
}

func (t *typer) fillSlice(n *node, v reflect.Value) *Error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return t.custom(n, v)
	}
	if n.kind != sequence {
		return refuse(n, "needs a list, not %s", n.describe())
	}
	list := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i := range n.items {
		if err := t.fill(&n.items[i], list.Index(i)); err != nil {
			return err.within("[" + strconv.Itoa(i) + "]")
		}
	}
	v.Set(list)
	return nil
}

func (t *typer) fillMap(n *node, v reflect.Value) *Error {
	if n.kind != mapping {
		return refuse(n, "needs a mapping, not %s", n.describe())
	}
	m := reflect.MakeMapWithSize(v.Type(), len(n.items)/2)
	for i := 0; i < len(n.items); i += 2 {
		k := &n.items[i]
		key := reflect.ValueOf(t.intern(k.text)).Convert(v.Type().Key())
		if m.MapIndex(key).IsValid() {
			return refuse(k, "the key is there twice").within("[" + k.text + "]")
		}
		value := reflect.New(v.Type().Elem()).Elem()
		if err := t.fill(&n.items[i+1], value); err != nil {
			return err.within("[" + k.text + "]")
		}
		m.SetMapIndex(key, value)
	}
	v.Set(m)
	return nil
}

func (t *typer) fillString(n *node, v reflect.Value) *Error {
	if n.kind != scalar {
		return refuse(n, "needs a string, not %s", n.describe())
	}
	if n.means() != isString {
		return refuse(n, "needs a string, not %s: write it in quotes", n.describe())
	}
	v.SetString(t.intern(n.text))
	return nil
}

func fillInt(n *node, v reflect.Value) *Error {
	if n.kind != scalar || n.means() != isInt {
		return refuse(n, "needs a whole number, not %s", n.describe())
	}
	i, err := wholeNumber(n.text)
	if err != nil || v.OverflowInt(i) {
		return refuse(n, "the number %s does not fit into %d bits", n.text, v.Type().Bits())
	}
	v.SetInt(i)
	return nil
}

// custom hands the value to the type's own JSON reader.
func (t *typer) custom(n *node, v reflect.Value) *Error {
	text, err := json.Marshal(n.plainValue())
	if err == nil {
		err = json.Unmarshal(text, v.Addr().Interface())
	}
	if err != nil {
		return refuse(n, "%s is not accepted: %v", n.describe(), err)
	}
	return nil
}

// plainValue returns the node as encoding/json would have read it.
func (n *node) plainValue() any {
	switch n.kind {
	case mapping:
		m := make(map[string]any, len(n.items)/2)
		for i := 0; i < len(n.items); i += 2 {
			m[n.items[i].text] = n.items[i+1].plainValue()
		}
		return m
	case sequence:
		s := make([]any, len(n.items))
		for i := range n.items {
			s[i] = n.items[i].plainValue()
		}
		return s
	}
	switch n.means() {
	case isNull:
		return nil
	case isBool:
		return n.truth()
	case isInt:
		i, _ := wholeNumber(n.text)
		return i
	case isFloat:
		return json.Number(n.text)
	}
	return n.text
}

func refuse(n *node, format string, args ...any) *Error {
	return &Error{Line: int(n.line), Reason: fmt.Sprintf(format, args...)}
}
