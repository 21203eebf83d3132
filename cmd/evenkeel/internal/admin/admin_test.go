// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/upgrade"
)

const strangerVariable = "EVENKEEL_ADMIN_TEST_SOCKET"

// TestMain is also another user's process, which asks an agent.
func TestMain(m *testing.M) {
	socket := os.Getenv(strangerVariable)
	if socket == "" {
		os.Exit(m.Run())
	}
	_, err := NewClient(socket, "/").Status(context.Background())
	fmt.Fprintln(os.Stdout, err)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// newView is of a data plane on a BPF file system and in a cgroup of its own, with one service and no pod.
func newView(t testing.TB) *report.View {
	t.Helper()
	return newSizedView(t, bpf.Sizes{Services: 8, Endpoints: 8, Workloads: 8, Affinities: 8, Peers: 8})
}

func newSizedView(t testing.TB, sizes bpf.Sizes) *report.View {
	t.Helper()
	needRoot(t)
	bpffs := t.TempDir()
	if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bpffs, 0); err != nil {
			t.Error(err)
		}
	})
	root, err := plane.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.MkdirTemp(root, "evenkeel-admin-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(cgroup); err != nil {
			t.Error(err)
		}
	})
	o := upgrade.Options{Dir: filepath.Join(bpffs, "evenkeel"), Cgroup: cgroup}
	store, err := upgrade.Open(t.Context(), plane.Of(sizes.MaxEntries()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		store.Close()
		if err := upgrade.Uninstall(context.Background(), o); err != nil {
			t.Error(err)
		}
	})
	maps, err := plane.Maps(store.Frozen(), store.Serving())
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(t.Context(), engine.Options{
		Maps: maps, Publisher: bpf.NewPublisher(store.Serving().Programs[bpf.MeshProgPublish], store.Epoch()),
		Sizes: store.Serving().Sizes(), Node: "n1", Sources: []string{"test"}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(t.Context(), "test", oneService()); err != nil {
		t.Fatal(err)
	}
	return &report.View{
		Dir: o.Dir, Frozen: store.Frozen(), Serving: store.Serving(), Pods: store.Pods, Engine: e, Word: store.Word,
		Agent: func() (report.Agent, []report.Source) { return report.Agent{Node: "n1", Ready: true}, nil },
	}
}

func oneService() engine.Change {
	return engine.Change{
		Services: map[string]*engine.Service{"default/web": {
			Name: "default/web", Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
			Ports: []engine.ServicePort{{Protocol: engine.TCP, Port: 80}},
		}},
		Slices: map[string]*engine.Slice{"default/web": {
			Name: "default/web", Service: "default/web", Ports: []engine.SlicePort{{Protocol: engine.TCP, Port: 8080}},
			Endpoints: []engine.Endpoint{{
				Address: netip.MustParseAddr("10.0.0.1"), Workload: "default/web-0", Weight: 1, Ready: true,
			}},
		}},
		Synced: []engine.Kind{engine.Services, engine.Slices, engine.Nodes, engine.Workloads, engine.Namespaces},
	}
}

func ready() Readiness {
	synced := make(chan struct{})
	close(synced)
	return Readiness{Check: func() []string { return nil }, Synced: synced}
}

// serve answers at a socket until the end of the test.
func serve(t testing.TB, v *report.View, r Readiness) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "run", "admin.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, v, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return socket
}

func TestClientAndServer(t *testing.T) {
	v := newView(t)
	c := NewClient(serve(t, v, ready()), v.Dir)
	defer c.Close()
	status, err := c.Status(t.Context())
	if err != nil || !status.Healthy || status.Agent.Node != "n1" || status.Word.Serve != 1 || len(status.Hooks) == 0 {
		t.Errorf("status %+v, %v", status, err)
	}
	services, err := c.Services(t.Context())
	if err != nil || len(services.Services) != 1 || services.Services[0].Name != "default/web" {
		t.Errorf("services %+v, %v", services, err)
	}
	endpoints, err := c.Endpoints(t.Context())
	if err != nil || len(endpoints.Endpoints) != 1 || endpoints.Endpoints[0].Workload != "default/web-0" {
		t.Errorf("endpoints %+v, %v", endpoints, err)
	}
	workloads, err := c.Workloads(t.Context())
	if err != nil || workloads.Workloads == nil || len(workloads.Workloads) != 0 {
		t.Errorf("workloads %+v, %v: want an empty list", workloads, err)
	}
	q, err := report.ParseQuestion("default/client", "web", "80", "tcp")
	if err != nil {
		t.Fatal(err)
	}
	x, err := c.Explain(t.Context(), q)
	if err != nil || x.Outcome != engine.OutcomeUnknown || x.Service != "default/web" {
		t.Errorf("explanation %+v, %v", x, err)
	}
}

// TestAnotherDataPlane: what is asked about one is not answered about another.
func TestAnotherDataPlane(t *testing.T) {
	v := newView(t)
	c := NewClient(serve(t, v, ready()), v.Dir+"2")
	defer c.Close()
	if _, err := c.Services(t.Context()); !errors.Is(err, ErrNobody) || !strings.Contains(err.Error(), v.Dir) {
		t.Errorf("%v", err)
	}
}

// TestNames asks for more than fits into one request.
func TestNames(t *testing.T) {
	v := newView(t)
	c := NewClient(serve(t, v, ready()), v.Dir)
	defer c.Close()
	var service string
	for index := range uint32(8) {
		for incarnation := range uint32(8) {
			if name, _, ok := v.Engine.ServiceAt(index, incarnation); ok && name != "" {
				service = fmt.Sprintf("%d.%d", index, incarnation)
			}
		}
	}
	refs := []string{service}
	for i := range 2*MaxNames + 1 {
		refs = append(refs, fmt.Sprintf("%d.77", i))
	}
	names, err := c.Names(t.Context(), refs, refs)
	if err != nil || names.Services[service] != "default/web" || len(names.Services) != 1 || len(names.Endpoints) > 1 {
		t.Errorf("of %s: %+v, %v", service, names, err)
	}
}

func TestClientErrors(t *testing.T) {
	missing := NewClient(filepath.Join(t.TempDir(), "none"), "/")
	if _, err := missing.Status(t.Context()); !errors.Is(err, ErrNobody) {
		t.Errorf("no socket: %v", err)
	}
	path := filepath.Join(t.TempDir(), "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := NewClient(path, "/").Status(t.Context()); !errors.Is(err, ErrNobody) {
		t.Errorf("nobody listens: %v", err)
	}
	hung := filepath.Join(t.TempDir(), "hung")
	l, err = net.ListenUnix("unix", &net.UnixAddr{Name: hung})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewClient(hung, "/")
	c.http.Timeout = 50 * time.Millisecond
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNobody) {
		t.Errorf("nobody accepts: %v", err)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "made", "admin.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d (", os.Getpid())) {
		t.Errorf("beside another: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as if it was killed
	l.Close()
	if l, err = Listen(path); err != nil {
		t.Errorf("after one that was killed: %v", err)
	} else {
		l.Close()
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file was touched: %q, %v", text, err)
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("a long path: %v", err)
	}
}

// TestStrangersAreRefused opens every door but the last: the kernel says who has connected.
func TestStrangersAreRefused(t *testing.T) {
	v := newView(t)
	socket := serve(t, v, ready())
	ask := func() string {
		stranger := exec.Command("/proc/self/exe")
		stranger.Env = append(os.Environ(), strangerVariable+"="+socket)
		stranger.Dir = "/"
		stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := stranger.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if said := ask(); !strings.Contains(said, "permission denied") {
		t.Errorf("by the mode of the directory: %s", said)
	}
	for _, path := range []string{socket, filepath.Dir(socket), filepath.Dir(filepath.Dir(socket)),
		filepath.Dir(filepath.Dir(filepath.Dir(socket)))} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if said := ask(); !strings.Contains(said, "only root") {
		t.Errorf("by who has connected: %s", said)
	}
}

// TestErrorsAreDocuments: what is not there, or not to be had, is told in the form that docs/CLI.md promises.
func TestErrorsAreDocuments(t *testing.T) {
	h := Handler(newView(t), ready())
	for _, test := range []struct {
		method, path string
		uid          uint32
		code         int
	}{
		{"GET", "/v1/nope", 0, 404}, {"GET", "/", 0, 404}, {"POST", "/v1/status", 0, 405}, {"GET", "/v1/explain", 0, 400},
		{"GET", "/v1/status", 12345, 403},
	} {
		r := httptest.NewRequest(test.method, test.path, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), credentials{}, &unix.Ucred{Uid: test.uid})))
		var said failure
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.Error == "" || w.Code != test.code ||
			w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s", test.method, test.path, w.Code, w.Body)
		}
	}
}

// FuzzHandler: no request ends it, is answered by anything but JSON where there is a document, or by an error of its
// own.
func FuzzHandler(f *testing.F) {
	h := Handler(newView(f), ready())
	for _, target := range []string{
		"/v1/status", "/v1/services", "/v1/endpoints", "/v1/workloads", "/v1/names?service=1.1&endpoint=1.1&endpoint=x",
		"/v1/names?service=4294967295.4294967295&endpoint=4294967295.1", "/v1/names?service=%zz", "/v1/names?service=1",
		"/v1/explain?workload=a/b&service=web&port=80&protocol=udp", "/v1/explain?workload=a&service=::1&port=0",
		"/v1/explain?workload=default/c&service=10.96.0.10&port=80", "/readyz?wait=0s", "/readyz?wait=x", "/", "/v1/../etc",
	} {
		f.Add("GET", target)
	}
	f.Add("POST", "/v1/status")
	codes := []int{200, 301, 307, 308, 400, 404, 405}
	f.Fuzz(func(t *testing.T, method, target string) {
		if strings.Contains(target, "wait=") && !strings.HasSuffix(target, "=0s") {
			t.Skip("it may wait")
		}
		r, err := http.NewRequest(method, "http://agent"+target, bytes.NewReader([]byte("body")))
		if err != nil {
			t.Skip("no request at all")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), credentials{}, &unix.Ucred{Uid: 0})))
		if !slices.Contains(codes, w.Code) {
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
		if w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: %s", method, target, w.Body)
		}
		w = httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusForbidden {
			t.Errorf("%s %s of nobody: %d", method, target, w.Code)
		}
	})
}
