// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
)

// TestMain makes the test binary the processes that faults need, and a victim.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-test.") {
		code := m.Run()
		if built.dir != "" {
			os.RemoveAll(built.dir)
		}
		os.Exit(code)
	}
	if err := asProcess(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func asProcess(what string, args []string) error {
	switch what {
	case "fault":
		return Main(context.Background(), args)
	case "victim": // works until its standard input ends
		fmt.Fprintln(os.Stdout, "ready")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "opener": // opens a file for each line that it reads, and says how that went
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			_, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
			fmt.Fprintln(os.Stdout, "opened", err)
		}
		return nil
	case "dial":
		return connect(args[0])
	case "dies": // injects a stop into a process and ends without healing
		return injectAndDie(args[0])
	}
	return fmt.Errorf("unknown process %q", what)
}

// self leads to Main.
func self(t testing.TB) []string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{path, "fault"}
}

// needRoot skips a test where it cannot run, and fails it where CI says that it must.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("faults need root")
	}
	t.Skip("faults need root: run make test")
}

// process is a process of the test binary.
type process struct {
	netsim.Process
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Reader
}

// start starts a process of the test binary in a cgroup of its own.
func start(t testing.TB, what string) *process {
	t.Helper()
	needRoot(t)
	root, err := mountPoint("")
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.MkdirTemp(root, "fault-test-")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	p := &process{cmd: exec.Command("/proc/self/exe", what)}
	p.cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if p.Process, err = netsim.ProcessOf(p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if err := unix.Rmdir(cgroup); err != nil {
			t.Errorf("remove %s: %v", cgroup, err)
		}
	})
	if what == "victim" {
		p.read(t)
	}
	return p
}

func (p *process) read(t testing.TB) string {
	t.Helper()
	line, err := p.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("read from process: %v", err)
	}
	return strings.TrimSpace(line)
}

// healing collects what is registered.
type healing struct{ heal func(context.Context) error }

func (h *healing) register(heal func(context.Context) error) { h.heal = heal }

// inject injects a fault that must bite, and heals it at the end of the test if that was not done before.
func inject(t testing.TB, f Fault) *Injection {
	t.Helper()
	var h healing
	i, err := Options{Self: self(t), Limit: time.Minute}.Inject(t.Context(), h.register, f)
	t.Cleanup(func() {
		if err := h.heal(context.Background()); err != nil {
			t.Errorf("heal: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	mustBite(t, i)
	return i
}

// mustBite fails unless the counter says that a fault has bitten.
func mustBite(t testing.TB, f Fault) {
	t.Helper()
	n, err := f.Active(t.Context())
	if err != nil {
		t.Fatalf("%v: %v", f, err)
	}
	if n == 0 {
		t.Fatalf("%v has not bitten", f)
	}
}

// mustHeal heals a fault twice, and by another process's copy of it: all must be content.
func mustHeal(t testing.TB, i *Injection) {
	t.Helper()
	m, err := describe(i.Fault)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := decode(m)
	if err != nil {
		t.Fatal(err)
	}
	for n, heal := range []func(context.Context) error{i.Heal, i.Heal, i.Fault.Heal, elsewhere.Heal} {
		if err := heal(t.Context()); err != nil {
			t.Fatalf("heal %v, for the %dth time: %v", i, n+1, err)
		}
	}
}

// built is the evenkeel that tests of agents run.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// evenkeel builds the program once.
func evenkeel(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "evenkeel-fault-"); built.err != nil {
			return
		}
		text, err := exec.Command("go", "build", "-o", built.dir, "github.com/evenkeel/evenkeel/cmd/evenkeel").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build evenkeel: %w: %s", err, text)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "evenkeel")
}

const pair = `apiVersion: netsim.evenkeel.io/v1
kind: Topology
metadata: {name: NAME}
spec:
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  wires:
  - {between: [a, b]}
  pods:
  - {name: client, node: a}
  - {name: server, node: b, serve: ["tcp :9000", "udp :9001"]}
`

// served is what a lab with agents serves: one service, dialled by the client, which is enrolled.
const served = `---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{port: 80, targetPort: 9000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 9000, protocol: TCP}]
endpoints: [{addresses: [10.10.2.2], conditions: {ready: true}}]
`

// lab makes a lab of two nodes, with agents or without, that goes with the test.
func lab(t testing.TB, agents bool) Environment {
	t.Helper()
	needRoot(t)
	text := strings.ReplaceAll(pair, "NAME", fmt.Sprintf("f-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9))
	if agents {
		text = strings.ReplaceAll(text, "{name: client,", "{name: client, enrol: true,")
		text += "  agent: {enabled: true}\n" + served
	}
	topology, err := netsim.Parse(strings.NewReader(text), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	binary := evenkeel(t)
	l, err := netsim.Up(t.Context(), topology, netsim.Options{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return Environment{Lab: l, Binary: binary, Self: self(t)}
}

// build makes a fault by name.
func (e Environment) mustBuild(t testing.TB, text string) Fault {
	t.Helper()
	spec, err := ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	f, err := e.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// mustRun makes sure that a node's agent runs.
func (e Environment) mustRun(t testing.TB, node string) netsim.Process {
	t.Helper()
	p, err := NewAgent(e.Lab, node, e.Binary, nil).process()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func injectAndDie(pid string) error {
	var p netsim.Process
	if _, err := fmt.Sscan(pid, &p.PID, &p.Start); err != nil {
		return err
	}
	path, err := os.Executable()
	if err != nil {
		return err
	}
	var h healing
	_, err = Options{Self: []string{path, "fault"}}.Inject(context.Background(), h.register, &Stop{Process: p})
	return errors.Join(err, unix.Kill(os.Getpid(), unix.SIGKILL))
}

func contextWithTimeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
