// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/evenkeel/evenkeel/engine/enrol"
)

const podArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1"

var meshed = Decisions{"shop": {Verdict: Mesh}}

func add(netns string) request {
	return request{verb: "ADD", container: "c1", iface: "eth0", netns: netns, args: podArgs}
}

func with(r request, verb string) request { r.verb = verb; return r }

func (n *node) must(r request) said {
	n.Helper()
	s := n.call(r)
	if s.code != 0 {
		n.Fatalf("%s: %s", r.verb, s.stdout)
	}
	if s.stderr != "" {
		n.Errorf("%s said %q", r.verb, s.stderr)
	}
	return s
}

func (n *node) fails(r request, code uint, want string) {
	n.Helper()
	s := n.call(r)
	if s.code == 0 || s.err.Code != code || !strings.Contains(s.err.Msg+s.err.Details, want) {
		n.Errorf("%s: exit %d, %s; want code %d, %q", r.verb, s.code, s.stdout, code, want)
	}
}

func TestAddEnrolsWhatWasDecided(t *testing.T) {
	n := newNode(t, true)
	n.decide(meshed)
	path, _ := newSandbox(t, "10.9.0.2/24")
	s := n.must(add(path))
	if s.stdout != prev {
		t.Errorf("the result is not what was given:\n%s\n%s", s.stdout, prev)
	}
	if n.enrolled() != "shop/web-0" {
		t.Errorf("enrolled: %s", n.enrolled())
	}
	n.must(with(add(path), "CHECK"))
	n.must(with(add(path), "DEL"))
	n.empty()
	n.must(with(add(path), "DEL"))
}

func TestAddLeavesAlone(t *testing.T) {
	n := newNode(t, true)
	path, _ := newSandbox(t, "10.9.0.2/24")
	for name, all := range map[string]Decisions{
		"what nothing was said about": {},
		"what is off":                 {"shop": {Verdict: Off}},
		"a pod that opted out":        {"shop": {Verdict: Mesh}, "shop/web-0": {Verdict: Off, UID: "u1"}},
		"what another mesh owns":      {"shop": {Verdict: OtherMesh}},
		"a pod that cannot be":        {"shop": {Verdict: Mesh}, "shop/web-0": {Verdict: Ineligible}},
	} {
		t.Run(name, func(t *testing.T) {
			n.decide(all)
			n.must(add(path))
			if n.enrolled() != "" {
				t.Errorf("enrolled: %s", n.enrolled())
			}
			n.must(with(add(path), "CHECK"))
			n.must(with(add(path), "DEL"))
			n.empty()
		})
	}
	t.Run("what is no pod", func(t *testing.T) {
		n.decide(meshed)
		r := add(path)
		r.args = "A=b"
		n.must(r)
		n.empty()
	})
}

func TestDecisionOfAnotherPodOfTheNameIsNone(t *testing.T) {
	n := newNode(t, true)
	n.decide(Decisions{"shop": {Verdict: Mesh}, "shop/web-0": {Verdict: Off, UID: "another"}})
	path, _ := newSandbox(t, "10.9.0.2/24")
	n.must(add(path))
	if n.enrolled() != "shop/web-0" {
		t.Errorf("enrolled: %s", n.enrolled())
	}
}

func TestNothingServes(t *testing.T) {
	n := newNode(t, false)
	n.decide(Decisions{"shop": {Verdict: Mesh}, "kube-system": {Verdict: Mesh}, "shop/node-0": {Verdict: Mesh, Critical: true}})
	path, _ := newSandbox(t, "10.9.0.2/24")
	n.fails(add(path), types.ErrTryAgainLater, "start the agent")
	if _, err := os.Stat(filepath.Join(n.dir, "attachments", "c1")); err == nil {
		t.Error("a record is left of an ADD that failed")
	}
	n.must(with(add(path), "DEL"))
	exempt := add(path)
	exempt.args = "K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns"
	exempt.conf = map[string]any{"exempt": []string{"kube-system"}}
	n.must(exempt)
	n.must(with(exempt, "DEL"))
	critical := add(path)
	critical.args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=node-0"
	n.must(critical)
	// The map is gone with the boot, the copy is not.
	if err := os.Remove(DecisionsPin(n.pins)); err != nil {
		t.Fatal(err)
	}
	n.fails(add(path), types.ErrTryAgainLater, "start the agent")
	n.must(critical)
	if err := os.WriteFile(decisionsFile(n.dir), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.fails(add(path), types.ErrIOFailure, "decisions.json")
	n.must(exempt)
	n.fails(request{verb: "STATUS"}, types.ErrPluginNotAvailable, "start the agent")
}

func TestStatus(t *testing.T) {
	n := newNode(t, true)
	n.must(request{verb: "STATUS"})
	if err := os.WriteFile(filepath.Join(n.dir, "lacking"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.fails(request{verb: "STATUS"}, types.ErrLimitedConnectivity, "connect4")
}

func TestVersions(t *testing.T) {
	n := newNode(t, true)
	n.decide(meshed)
	path, _ := newSandbox(t, "10.9.0.2/24")
	s := n.must(request{verb: "VERSION"})
	for _, v := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		if !strings.Contains(s.stdout, `"`+v+`"`) {
			t.Errorf("%s is not in %s", v, s.stdout)
		}
		r := add(path)
		r.conf = map[string]any{"cniVersion": v}
		var got struct {
			CNIVersion string
			IPs        []struct{ Version, Address string }
		}
		if err := json.Unmarshal([]byte(n.must(r).stdout), &got); err != nil {
			t.Fatal(err)
		}
		if got.CNIVersion != v || len(got.IPs) != 1 || got.IPs[0].Address != "10.9.0.2/24" {
			t.Errorf("%s: %+v", v, got)
		}
		if old := got.IPs[0].Version == "4"; old != (v < "1") {
			t.Errorf("%s: %+v is not of that version", v, got)
		}
		given := `{"cniVersion":"` + v + `","ips":[],"dns":{},"odd":[1, 2]}`
		r.conf["prevResult"] = json.RawMessage(given)
		if s := n.must(r); s.stdout != compact(t, given) {
			t.Errorf("%s: %s, was given %s", v, s.stdout, given)
		}
		n.must(with(r, "DEL"))
	}
	r := add(path)
	r.conf = map[string]any{"cniVersion": "2.0.0"}
	n.fails(r, types.ErrIncompatibleCNIVersion, "")
}

// compact is what json.Marshal of the harness makes of it, before the plugin sees it.
func compact(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestBadInput(t *testing.T) {
	n := newNode(t, true)
	n.decide(meshed)
	path, _ := newSandbox(t, "10.9.0.2/24")
	file := filepath.Join(n.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	change := func(f func(*request)) request { r := add(path); f(&r); return r }
	conf := func(c map[string]any) request { return change(func(r *request) { r.conf = c }) }
	for name, test := range map[string]struct {
		r    request
		code uint
		want string
	}{
		"no prevResult":            {conf(map[string]any{"prevResult": nil}), types.ErrInvalidNetworkConfig, "prevResult"},
		"null prevResult":          {conf(map[string]any{"prevResult": json.RawMessage("null")}), types.ErrInvalidNetworkConfig, "prevResult"},
		"prevResult a number":      {conf(map[string]any{"prevResult": 7}), types.ErrDecodingFailure, "prevResult"},
		"a bad address":            {conf(map[string]any{"prevResult": map[string]any{"ips": []any{map[string]any{"address": "x"}}}}), types.ErrDecodingFailure, "prevResult"},
		"nothing":                  {change(func(r *request) { r.stdin = []byte("") }), types.ErrDecodingFailure, ""},
		"not UTF-8":                {change(func(r *request) { r.stdin = []byte("{\"name\":\"\xff\"}") }), types.ErrInvalidNetworkConfig, ""},
		"10 MB":                    {change(func(r *request) { r.stdin = bytes.Repeat([]byte("["), 10<<20) }), types.ErrDecodingFailure, ""},
		"a relative path":          {conf(map[string]any{"pinDir": "../x"}), types.ErrInvalidNetworkConfig, "pinDir"},
		"a path that climbs":       {conf(map[string]any{"runDir": "/run/../etc"}), types.ErrInvalidNetworkConfig, "runDir"},
		"a container that climbs":  {change(func(r *request) { r.container = "../x" }), types.ErrInvalidEnvironmentVariables, ""},
		"an interface that climbs": {change(func(r *request) { r.iface = "../x" }), types.ErrInvalidEnvironmentVariables, ""},
		"a pod that climbs":        {change(func(r *request) { r.args = "K8S_POD_NAMESPACE=..;K8S_POD_NAME=x" }), types.ErrInvalidEnvironmentVariables, "NS/NAME"},
		"half a pod":               {change(func(r *request) { r.args = "K8S_POD_NAMESPACE=shop" }), types.ErrInvalidEnvironmentVariables, "NS/NAME"},
		"a long UID":               {change(func(r *request) { r.args += strings.Repeat("u", 64) }), types.ErrInvalidEnvironmentVariables, "K8S_POD_UID"},
		"no namespace":             {change(func(r *request) { r.netns = "/run/netns/missing" }), types.ErrInvalidNetNS, "missing"},
		"a file":                   {change(func(r *request) { r.netns = file }), types.ErrInvalidNetNS, "not a network namespace"},
		"a namespace of mounts":    {change(func(r *request) { r.netns = "/proc/self/ns/mnt" }), types.ErrInvalidNetNS, "not a network namespace"},
		"the node's own":           {change(func(r *request) { r.netns = "/proc/self/ns/net" }), codeRefused, "host network"},
		"GC of what":               {request{verb: "GC"}, types.ErrInvalidNetworkConfig, "valid-attachments"},
		"an unknown verb":          {request{verb: "MELT"}, types.ErrInvalidEnvironmentVariables, "MELT"},
	} {
		t.Run(name, func(t *testing.T) {
			n := *n
			n.TB = t
			n.fails(test.r, test.code, test.want)
			n.empty()
		})
	}
	big := add(path)
	big.conf = map[string]any{"unknown": strings.Repeat("x", 10<<20)}
	n.must(big)
	n.must(with(big, "DEL"))
	n.empty()
}

func TestSandboxWithoutAddressIsNotMeshed(t *testing.T) {
	n := newNode(t, true)
	n.decide(meshed)
	path, _ := newSandbox(t, "")
	n.fails(add(path), codeEnrol, "no address")
	n.empty()
}

func TestDel(t *testing.T) {
	n := newNode(t, true)
	n.decide(meshed)
	t.Run("without namespace, result, and path", func(t *testing.T) {
		path, drop := newSandbox(t, "10.9.0.2/24")
		n.must(add(path))
		drop()
		r := request{verb: "DEL", container: "c1", iface: "eth0", conf: map[string]any{"prevResult": nil}}
		n.must(r)
		n.empty()
		n.must(r)
	})
	t.Run("of the last sandbox leaves the next one of the pod", func(t *testing.T) {
		old, drop := newSandbox(t, "10.9.0.2/24")
		n.must(add(old))
		drop()
		path, _ := newSandbox(t, "10.9.0.3/24")
		next := add(path)
		next.container = "c2"
		n.must(next)
		n.must(with(add(old), "DEL"))
		unseen := request{verb: "DEL", container: "c0", iface: "eth0", args: podArgs}
		n.must(unseen)
		if n.enrolled() != "shop/web-0" {
			t.Errorf("enrolled: %s", n.enrolled())
		}
		n.must(with(next, "DEL"))
		n.empty()
	})
	t.Run("of a sandbox that ADD never saw", func(t *testing.T) {
		for _, gone := range []bool{false, true} {
			path, drop := newSandbox(t, "10.9.0.2/24")
			n.must(add(path))
			if err := os.RemoveAll(filepath.Join(n.dir, "attachments")); err != nil {
				t.Fatal(err)
			}
			r := with(add(path), "DEL")
			if gone {
				drop()
				r.netns = ""
			}
			n.must(r)
			n.empty()
		}
	})
	t.Run("where nothing serves", func(t *testing.T) {
		n := newNode(t, false)
		path, _ := newSandbox(t, "10.9.0.2/24")
		n.must(with(add(path), "DEL"))
	})
	t.Run("of the node's own namespace", func(t *testing.T) {
		n.must(with(add("/proc/self/ns/net"), "DEL"))
	})
}

func TestTwoInterfacesOfOnePod(t *testing.T) {
	n := newNode(t, true)
	n.decide(meshed)
	path, _ := newSandbox(t, "10.9.0.2/24")
	first, second := add(path), add(path)
	second.iface = "net1"
	n.must(first)
	addVeth(t, path, "10.9.1.2/24")
	n.must(second)
	n.must(with(second, "DEL"))
	if n.enrolled() != "shop/web-0" {
		t.Errorf("enrolled: %s", n.enrolled())
	}
	n.must(with(first, "CHECK"))
	n.must(with(first, "DEL"))
	n.empty()
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	n := newNode(t, true)
	n.decide(meshed)
	path, _ := newSandbox(t, "10.9.0.2/24")
	n.must(add(path))
	cookie, err := enrol.Cookie(path)
	if err != nil {
		t.Fatal(err)
	}
	links := filepath.Join(n.dir, "links", fmt.Sprint(cookie))
	for what, tamper := range map[string]func() error{
		"sk_lookup":  func() error { return os.Remove(filepath.Join(links, "sk_lookup")) },
		"tcx":        func() error { return os.Remove(filepath.Join(links, "tcx")) },
		"the record": func() error { return os.Remove(filepath.Join(n.dir, "attachments", "c1", "eth0")) },
		"name":       func() error { return n.maps.Names.Delete(cookie) },
		"workloads": func() error {
			_, err := enrol.WithdrawCookie(t.Context(), enrol.Options{Maps: n.maps, Links: fileLinks{n.dir}}, cookie, "shop/web-0")
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			if err := tamper(); err != nil {
				t.Fatal(err)
			}
			n.fails(with(add(path), "CHECK"), codeEnrol, what)
			n.must(add(path))
			n.must(with(add(path), "CHECK"))
		})
	}
}

func TestGCRemovesExactlyWhatIsStale(t *testing.T) {
	n := newNode(t, true)
	n.decide(meshed)
	var all []request
	for i := range 4 {
		path, _ := newSandbox(t, fmt.Sprintf("10.9.0.%d/24", 2+i))
		r := add(path)
		r.container = fmt.Sprintf("c%d", i)
		r.args = fmt.Sprintf("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-%d", i)
		if i == 3 {
			r.conf = map[string]any{"name": "another"}
		}
		n.must(r)
		all = append(all, r)
	}
	gc := request{verb: "GC", conf: map[string]any{"cni.dev/valid-attachments": []types.GCAttachment{
		{ContainerID: "c1", IfName: "eth0"}, {ContainerID: "c0", IfName: "eth1"}, {ContainerID: "c9", IfName: "eth0"},
	}}}
	n.must(gc)
	if n.enrolled() != "shop/web-1 shop/web-3" {
		t.Errorf("enrolled: %s", n.enrolled())
	}
	gc.conf["cni.dev/valid-attachments"] = json.RawMessage("null")
	n.must(gc)
	if n.enrolled() != "shop/web-3" {
		t.Errorf("enrolled: %s", n.enrolled())
	}
	n.must(with(all[3], "DEL"))
	n.empty()
}
