// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// suite tries one plugin.
type suite struct {
	plugin, conf, args string
	parallel           int
	noKill             bool

	self      string
	keys      map[string]any
	dir       string
	sandboxes int
	findings  []finding
}

// versions of the specification in which a plugin is chained.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

func (s *suite) run(ctx context.Context) (_ []finding, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	if s.dir, err = os.MkdirTemp("", "evenkeel-cni-conformance-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	supported, err := s.version(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range supported {
		if err := s.verbs(ctx, v); err != nil {
			return nil, err
		}
	}
	if len(supported) == 0 {
		return s.findings, nil
	}
	last := supported[len(supported)-1]
	for _, part := range []func(context.Context, string) error{s.misuse, s.deletions, s.atOnce, s.kills} {
		if err := part(ctx, last); err != nil {
			return nil, err
		}
	}
	return s.findings, nil
}

// found notes what came of trying something; an empty reason is well.
func (s *suite) found(group, name, why string) {
	s.findings = append(s.findings, finding{group, name, why == "", why})
}

func (s *suite) version(ctx context.Context) ([]string, error) {
	a, err := s.call(ctx, call{verb: "VERSION", stdin: []byte(`{"cniVersion":"1.1.0"}`)})
	if err != nil {
		return nil, err
	}
	var info struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}
	why := ""
	if err := json.Unmarshal([]byte(a.stdout), &info); err != nil || a.code != 0 || len(info.SupportedVersions) == 0 {
		why = fmt.Sprintf("exit code %d, %q", a.code, a.stdout)
	}
	s.found("VERSION", "lists versions", why)
	var supported []string
	for _, v := range versions {
		if slices.Contains(info.SupportedVersions, v) {
			supported = append(supported, v)
		}
	}
	return supported, nil
}

// results are forms of what the plugin before may have made.
func results(version string, b *sandbox) map[string]map[string]any {
	ip := func(family, address string) map[string]any {
		m := map[string]any{"address": address, "interface": 1}
		if version < "1" {
			m["version"] = family
		}
		return m
	}
	with := func(ips ...map[string]any) map[string]any {
		if ips == nil {
			ips = []map[string]any{}
		}
		return map[string]any{"cniVersion": version, "interfaces": []any{
			map[string]any{"name": fmt.Sprintf("host%d", b.number)}, map[string]any{"name": "eth0", "sandbox": b.netns},
		}, "ips": ips, "dns": map[string]any{}}
	}
	all := map[string]map[string]any{
		"IPv4": with(ip("4", "10.9.0.2/16")), "IPv6": with(ip("6", "fd00:9::2/64")),
		"both":   with(ip("4", "10.9.0.2/16"), ip("6", "fd00:9::2/64")),
		"no IP":  with(),
		"routes": with(ip("4", "10.9.0.2/16")),
	}
	all["routes"]["routes"] = []any{map[string]any{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}}
	all["routes"]["dns"] = map[string]any{"nameservers": []any{"10.96.0.10"}, "search": []any{"a.b"}}
	return all
}

// verbs tries every verb that a version has, with every form of a result.
func (s *suite) verbs(ctx context.Context, version string) error {
	b, err := s.newSandbox()
	if err != nil {
		return err
	}
	defer b.end()
	for name, result := range results(version, b) {
		conf := s.config(version, result, nil)
		a, err := s.call(ctx, s.base("ADD", b, conf))
		if err != nil {
			return err
		}
		s.found(version, "ADD, "+name, passedOn(a, result))
		if a, err = s.call(ctx, s.base("CHECK", b, conf)); err != nil {
			return err
		}
		if version < "0.4" {
			s.found(version, "CHECK, "+name, refused(a, 1))
		} else {
			s.found(version, "CHECK, "+name, silent(a))
		}
		if a, err = s.call(ctx, s.base("DEL", b, conf)); err != nil {
			return err
		}
		s.found(version, "DEL, "+name, silent(a))
	}
	unknown := results(version, b)["IPv4"]
	unknown["x-unknown"] = []any{1.5, "kept"}
	a, err := s.call(ctx, s.base("ADD", b, s.config(version, unknown, map[string]any{"x-unknown": true})))
	if err != nil {
		return err
	}
	s.found(version, "ADD, keys that are not known", passedOn(a, unknown))
	if _, err := s.call(ctx, s.base("DEL", b, s.config(version, unknown, nil))); err != nil {
		return err
	}
	for verb, more := range map[string]map[string]any{
		"GC": {"cni.dev/valid-attachments": []any{}, "cni.dev/attachments": []any{}}, "STATUS": nil,
	} {
		a, err := s.call(ctx, call{verb: verb, stdin: s.config(version, nil, more)})
		if err != nil {
			return err
		}
		switch {
		case version < "1.1":
			s.found(version, verb, refused(a, 1))
		case verb == "STATUS" && a.code != 0:
			s.found(version, verb, refused(a, 50, 51))
		default:
			s.found(version, verb, silent(a))
		}
	}
	return nil
}

// passedOn says what is wrong with a result that should be the one given.
func passedOn(a said, given map[string]any) string {
	if a.code != 0 {
		return fmt.Sprintf("exit code %d: %s%s", a.code, a.stdout, a.stderr)
	}
	var got, want any
	text, err := json.Marshal(given)
	if err == nil {
		err = json.Unmarshal(text, &want)
	}
	if err != nil {
		return err.Error()
	}
	if err := json.Unmarshal([]byte(a.stdout), &got); err != nil {
		return fmt.Sprintf("standard output is not a result: %v", err)
	}
	switch {
	case a.stderr != "":
		return fmt.Sprintf("it said %q on standard error", a.stderr)
	case !reflect.DeepEqual(whole(got), whole(want)):
		return fmt.Sprintf("the result is %s, was given %s", strings.Join(strings.Fields(a.stdout), ""), text)
	}
	return ""
}

// whole leaves out what is empty: a member that is not there says the same.
func whole(result any) any {
	members, ok := result.(map[string]any)
	if !ok {
		return result
	}
	for key, value := range members {
		if v := reflect.ValueOf(value); (v.Kind() == reflect.Map || v.Kind() == reflect.Slice) && v.Len() == 0 {
			delete(members, key)
		}
	}
	return members
}

// silent says what is wrong with a verb that should have succeeded and has no result.
func silent(a said) string {
	if a.code != 0 || a.stdout != "" {
		return fmt.Sprintf("exit code %d, %q, %q", a.code, a.stdout, a.stderr)
	}
	return ""
}

// refused says what is wrong with an error that should have one of these codes; none given: any.
func refused(a said, codes ...uint) string {
	f := a.failure()
	switch {
	case a.code == 0 || f == nil:
		return fmt.Sprintf("exit code %d, and %q is not an error", a.code, shorten(a.stdout+a.stderr))
	case f.Msg == "":
		return "the error has no sentence"
	case len(codes) > 0 && !slices.Contains(codes, *f.Code):
		return fmt.Sprintf("code %d (%s), want %v", *f.Code, f.Msg, codes)
	}
	return ""
}

func shorten(text string) string {
	if len(text) > 200 {
		return text[:200] + "…"
	}
	return text
}

// misuse tries what a runtime must not do.
func (s *suite) misuse(ctx context.Context, version string) error {
	b, err := s.newSandbox()
	if err != nil {
		return err
	}
	defer b.end()
	good := s.config(version, results(version, b)["IPv4"], nil)
	change := func(f func(*call)) call { c := s.base("ADD", b, good); f(&c); return c }
	for _, m := range []struct {
		name  string
		call  call
		codes []uint
	}{
		{"ADD without prevResult", change(func(c *call) { c.stdin = s.config(version, nil, nil) }), []uint{7}},
		{"ADD, prevResult a number", change(func(c *call) { c.stdin = s.config(version, nil, map[string]any{"prevResult": 7}) }), []uint{6, 7}},
		{"nothing on standard input", change(func(c *call) { c.stdin = nil }), []uint{6}},
		{"10 MB of brackets", change(func(c *call) { c.stdin = bytes.Repeat([]byte("["), 10<<20) }), []uint{6}},
		{"not UTF-8", change(func(c *call) { c.stdin = []byte("\xff\xfe") }), []uint{6}},
		{"no name", change(func(c *call) { c.stdin = []byte(`{"cniVersion":"` + version + `"}`) }), []uint{7}},
		{"a version to come", change(func(c *call) { c.stdin = s.config("9.0.0", results(version, b)["IPv4"], nil) }), []uint{1}},
		{"container ../x", change(func(c *call) { c.id = "../x" }), []uint{4}},
		{"interface ../x", change(func(c *call) { c.iface = "../x" }), []uint{4}},
		{"an interface of 16 letters", change(func(c *call) { c.iface = strings.Repeat("x", 16) }), []uint{4}},
		{"no CNI_CONTAINERID", change(func(c *call) { c.without = "CNI_CONTAINERID" }), []uint{4}},
		{"no CNI_NETNS", change(func(c *call) { c.without = "CNI_NETNS" }), []uint{4}},
		{"no CNI_IFNAME", change(func(c *call) { c.without = "CNI_IFNAME" }), []uint{4}},
		{"an unknown verb", change(func(c *call) { c.verb = "MELT" }), []uint{4}},
	} {
		a, err := s.call(ctx, m.call)
		if err != nil {
			return err
		}
		s.found("misuse", m.name, refused(a, m.codes...))
	}
	a, err := s.call(ctx, change(func(c *call) {
		c.stdin = s.config(version, results(version, b)["IPv4"], map[string]any{"x-unknown": strings.Repeat("x", 10<<20)})
	}))
	if err != nil {
		return err
	}
	s.found("misuse", "10 MB that are not known", passedOn(a, results(version, b)["IPv4"]))
	_, err = s.call(ctx, s.base("DEL", b, good))
	return err
}

// deletions tries DEL in every state that a runtime may be in: it must succeed.
func (s *suite) deletions(ctx context.Context, version string) error {
	given := func(b *sandbox) []byte { return s.config(version, results(version, b)["IPv4"], nil) }
	bare := s.config(version, nil, nil)
	for _, d := range []struct {
		name  string
		added bool
		gone  bool
		calls func(*sandbox) []call
	}{
		{"twice", true, false, func(b *sandbox) []call { c := s.base("DEL", b, given(b)); return []call{c, c} }},
		{"of what was never added", false, false, func(b *sandbox) []call { return []call{s.base("DEL", b, given(b))} }},
		{"without prevResult", true, false, func(b *sandbox) []call { return []call{s.base("DEL", b, bare)} }},
		{"with the namespace gone", true, true, func(b *sandbox) []call { return []call{s.base("DEL", b, given(b))} }},
		{"without CNI_NETNS", true, true, func(b *sandbox) []call { c := s.base("DEL", b, given(b)); c.netns = ""; return []call{c} }},
		{"without CNI_ARGS", true, false, func(b *sandbox) []call { c := s.base("DEL", b, given(b)); c.args = ""; return []call{c} }},
	} {
		b, err := s.newSandbox()
		if err != nil {
			return err
		}
		why := ""
		if d.added {
			a, err := s.call(ctx, s.base("ADD", b, given(b)))
			if err != nil {
				return err
			}
			if a.code != 0 {
				why = "ADD: " + shorten(a.stdout)
			}
		}
		if d.gone {
			b.end()
		}
		for _, c := range d.calls(b) {
			a, err := s.call(ctx, c)
			if err != nil {
				return err
			}
			if w := silent(a); why == "" {
				why = w
			}
		}
		b.end()
		s.found("DEL", d.name, why)
	}
	return nil
}

// atOnce runs many ADDs, and then DELs, of different sandboxes at the same time.
func (s *suite) atOnce(ctx context.Context, version string) error {
	all := make([]*sandbox, s.parallel)
	for i := range all {
		b, err := s.newSandbox()
		if err != nil {
			return err
		}
		defer b.end()
		all[i] = b
	}
	for _, verb := range []string{"ADD", "DEL"} {
		why := make([]string, len(all))
		group, ctx := errgroup.WithContext(ctx)
		for i, b := range all {
			group.Go(func() error {
				result := results(version, b)["IPv4"]
				a, err := s.call(ctx, s.base(verb, b, s.config(version, result, nil)))
				if verb == "ADD" {
					why[i] = passedOn(a, result)
				} else {
					why[i] = silent(a)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		failed := slices.DeleteFunc(why, func(w string) bool { return w == "" })
		first := ""
		if len(failed) > 0 {
			first = fmt.Sprintf("%d of %d: %s", len(failed), len(all), failed[0])
		}
		s.found("at once", fmt.Sprintf("%d of %s", len(all), verb), first)
	}
	return nil
}

// kills ends ADD before and after each call that leaves something: DEL must succeed then, and so must ADD.
func (s *suite) kills(ctx context.Context, version string) error {
	if s.noKill {
		return nil
	}
	b, err := s.newSandbox()
	if err != nil {
		return err
	}
	defer b.end()
	result := results(version, b)["IPv4"]
	conf := s.config(version, result, nil)
	whole := s.base("ADD", b, conf)
	whole.decide = func(supervisor.Call, supervisor.When) supervisor.Action { return supervisor.Go() }
	traced, err := s.call(ctx, whole)
	if err != nil {
		return err
	}
	if _, err := s.call(ctx, s.base("DEL", b, conf)); err != nil {
		return err
	}
	for i, c := range traced.calls {
		for _, when := range []supervisor.When{supervisor.Before, supervisor.After} {
			killed := s.base("ADD", b, conf)
			killed.decide = supervisor.AtNumber(i+1, when, supervisor.Kill())
			a, err := s.call(ctx, killed)
			if err != nil {
				return err
			}
			why := ""
			if !a.killed {
				why = "it never came there"
			}
			for _, verb := range []string{"DEL", "ADD", "DEL"} {
				a, err := s.call(ctx, s.base(verb, b, conf))
				if err != nil {
					return err
				}
				if a.code != 0 && why == "" {
					why = verb + ": " + shorten(a.stdout+a.stderr)
				}
			}
			s.found("killed", fmt.Sprintf("%v %v (%d)", when, c, i+1), why)
		}
	}
	return nil
}
