// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// maxValues is how many values a Topology may have, aliases expanded.
const maxValues = 1 << 18

// filler turns a YAML tree into a struct, strictly: every key must be a field, every value of the field's type. It
// remembers the line of each value by its path, because most mistakes are found only when all values are known.
type filler struct {
	lines map[string]int
	shift int // added to the lines of the tree
	left  int // values that may still come
}

// fill sets v, which is addressable, from n.
func (f *filler) fill(n *yaml.Node, v reflect.Value, path string) *manifest.Error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if f.left--; f.left < 0 {
		return f.refuse(n, path, fmt.Sprintf("the topology has more than %d values", maxValues))
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	f.lines[path] = n.Line + f.shift
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if n.Kind != yaml.ScalarNode {
			return f.refuse(n, path, "needs a string, not "+describe(n))
		}
		if err := text.UnmarshalText([]byte(n.Value)); err != nil {
			return f.refuse(n, path, fmt.Sprintf("%q is not accepted: %v", n.Value, err))
		}
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return f.fields(n, v, path)
	case reflect.Map:
		return f.mapping(n, v, path)
	case reflect.Slice:
		return f.list(n, v, path)
	}
	return f.scalar(n, v, path)
}

func (f *filler) fields(n *yaml.Node, v reflect.Value, path string) *manifest.Error {
	if n.Kind != yaml.MappingNode {
		return f.refuse(n, path, "needs a mapping, not "+describe(n))
	}
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = i
		names = append(names, name)
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		at := join(path, key.Value)
		index, known := fields[key.Value]
		if !known || key.Kind != yaml.ScalarNode {
			return f.refuse(key, at, "unknown field; known here: "+strings.Join(names, ", "))
		}
		if seen[key.Value] {
			return f.refuse(key, at, "the field is there twice")
		}
		seen[key.Value] = true
		if err := f.fill(n.Content[i+1], v.Field(index), at); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) mapping(n *yaml.Node, v reflect.Value, path string) *manifest.Error {
	if n.Kind != yaml.MappingNode {
		return f.refuse(n, path, "needs a mapping, not "+describe(n))
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		at := path + "[" + key.Value + "]"
		if key.Kind != yaml.ScalarNode {
			return f.refuse(key, path, "a key must be a string")
		}
		if v.MapIndex(reflect.ValueOf(key.Value)).IsValid() {
			return f.refuse(key, at, "the key is there twice")
		}
		value := reflect.New(v.Type().Elem()).Elem()
		if err := f.fill(n.Content[i+1], value, at); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(key.Value), value)
	}
	return nil
}

func (f *filler) list(n *yaml.Node, v reflect.Value, path string) *manifest.Error {
	if n.Kind != yaml.SequenceNode {
		return f.refuse(n, path, "needs a list, not "+describe(n))
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		if err := f.fill(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) scalar(n *yaml.Node, v reflect.Value, path string) *manifest.Error {
	switch want := v.Kind(); {
	case n.Kind == yaml.ScalarNode && want == reflect.String && n.Tag == "!!str":
		v.SetString(n.Value)
		return nil
	case want == reflect.String && n.Kind == yaml.ScalarNode:
		return f.refuse(n, path, "needs a string, not "+describe(n)+": write it in quotes")
	case n.Kind == yaml.ScalarNode && want == reflect.Bool && n.Tag == "!!bool":
		v.SetBool(strings.EqualFold(n.Value, "true"))
		return nil
	case n.Kind == yaml.ScalarNode && want == reflect.Int && n.Tag == "!!int":
		number, err := strconv.Atoi(n.Value)
		if err != nil {
			return f.refuse(n, path, n.Value+" is not a decimal number that fits")
		}
		v.SetInt(int64(number))
		return nil
	}
	names := map[reflect.Kind]string{reflect.String: "a string", reflect.Bool: "true or false", reflect.Int: "a number"}
	return f.refuse(n, path, "needs "+names[v.Kind()]+", not "+describe(n))
}

func (f *filler) refuse(n *yaml.Node, path, reason string) *manifest.Error {
	return &manifest.Error{Line: n.Line + f.shift, Field: path, Reason: reason}
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%q", n.Value)
}

func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}
