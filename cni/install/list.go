// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/evenkeel/evenkeel/cni"
)

// member is a member of a JSON object, its value as it was written.
type member struct {
	key   string
	value json.RawMessage
}

// list is a network configuration: a list of plugins, or the single plugin of a .conf file. Whatever is not changed
// stays as it was written: order, unknown keys, forms of numbers.
type list struct {
	members    []member
	single     bool // it has no plugins: it is one
	name       string
	cniVersion string
	onlyInline bool // loadOnlyInlinedPlugins: the drop-in directory is not read
	plugins    []json.RawMessage
}

// parse reads a configuration. It refuses what a runtime would, and what the plugin cannot be put behind.
func parse(text []byte) (*list, error) {
	l := &list{single: true}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.Join(errors.New("it is not a JSON object"), err)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: fmt.Sprint(key)}
		if err := d.Decode(&m.value); err != nil {
			return nil, err
		}
		l.members = append(l.members, m)
		if err := l.take(m); err != nil {
			return nil, fmt.Errorf("%s: %w", m.key, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("there is something behind the object")
	}
	return l, l.check()
}

func (l *list) take(m member) error {
	switch m.key {
	case "name":
		return json.Unmarshal(m.value, &l.name)
	case "cniVersion":
		return json.Unmarshal(m.value, &l.cniVersion)
	case "loadOnlyInlinedPlugins":
		l.onlyInline = bytes.Contains(bytes.ToLower(m.value), []byte("true"))
	case "plugins":
		l.single = false
		return json.Unmarshal(m.value, &l.plugins)
	}
	return nil
}

func (l *list) check() error {
	if err := utils.ValidateNetworkName(l.name); err != nil {
		return fmt.Errorf("name %q: %w", l.name, err)
	}
	if l.single {
		l.plugins = []json.RawMessage{l.write()}
	}
	if len(l.plugins) == 0 {
		return errors.New("it has no plugins")
	}
	for i, p := range l.plugins {
		if typeOf(p) == "" {
			return fmt.Errorf("plugins[%d]: it has no type", i)
		}
	}
	if able, err := version.GreaterThanOrEqualTo(l.cniVersion, "0.3.0"); err != nil || !able {
		return fmt.Errorf("cniVersion %q: a list of plugins needs 0.3.0 or newer", l.cniVersion)
	}
	return nil
}

func typeOf(plugin json.RawMessage) string {
	var p struct{ Type string }
	if json.Unmarshal(plugin, &p) != nil {
		return ""
	}
	return p.Type
}

// has reports whether the plugin is in the list.
func (l *list) has() bool {
	for _, p := range l.plugins {
		if typeOf(p) == cni.Type {
			return true
		}
	}
	return false
}

// with returns the configuration with this entry once, last if it was not there; nil if it is just so already.
func (l *list) with(entry json.RawMessage) []byte {
	var plugins []json.RawMessage
	found, same := false, !l.single
	for _, p := range l.plugins {
		if typeOf(p) != cni.Type {
			plugins = append(plugins, p)
			continue
		}
		if !found {
			plugins = append(plugins, entry)
		}
		same = same && !found && equal(p, entry)
		found = true
	}
	if found && same {
		return nil
	}
	if !found {
		plugins = append(plugins, entry)
	}
	return l.rebuild(plugins)
}

// without returns the configuration without the plugin; nil if it is not there, or there is no other.
func (l *list) without() []byte {
	var plugins []json.RawMessage
	for _, p := range l.plugins {
		if typeOf(p) != cni.Type {
			plugins = append(plugins, p)
		}
	}
	if len(plugins) == len(l.plugins) || len(plugins) == 0 {
		return nil
	}
	return l.rebuild(plugins)
}

// rebuild returns the configuration with these plugins.
func (l *list) rebuild(plugins []json.RawMessage) []byte {
	value := append(json.RawMessage("["), bytes.Join(asBytes(plugins), []byte(","))...)
	value = append(value, ']')
	out := &list{}
	if l.single {
		out.members = []member{
			{"cniVersion", quote(l.cniVersion)}, {"name", quote(l.name)}, {"plugins", value},
		}
		return out.format()
	}
	for _, m := range l.members {
		if m.key == "plugins" {
			m.value = value
		}
		out.members = append(out.members, m)
	}
	return out.format()
}

// format is how the configuration is written to a file.
func (l *list) format() []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, l.write(), "", "  "); err != nil {
		panic(err) // every part of it was read as JSON
	}
	out.WriteByte('\n')
	return out.Bytes()
}

func (l *list) write() json.RawMessage {
	out := []byte("{")
	for i, m := range l.members {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, quote(m.key)...), ':'), m.value...)
	}
	return append(out, '}')
}

func quote(s string) json.RawMessage {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always can be
	}
	return text
}

func asBytes(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i, p := range list {
		out[i] = p
	}
	return out
}

func equal(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
