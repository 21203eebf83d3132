// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ns"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// chain is a container runtime on a node as far as networks go: libcni, and real plugins in a list.
type chain struct {
	l      *lab
	node   string
	dir    string // of what the plugins keep
	libcni *libcni.CNIConfig
	list   *libcni.NetworkConfigList
}

// newChain reads a list of plugins. PINS, DIR and ipam are replaced in it.
func newChain(l *lab, node, name string, plugins ...string) *chain {
	GinkgoHelper()
	c := &chain{l: l, node: node, dir: GinkgoT().TempDir()}
	text := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "plugins": [%s]}`, name, strings.Join(plugins, ","))
	text = strings.NewReplacer("PINS", l.pins(node), "DIR", c.dir).Replace(text)
	var err error
	c.list, err = libcni.NetworkConfFromBytes([]byte(text))
	Expect(err).NotTo(HaveOccurred(), text)
	c.use(filepath.Dir(built.evenkeel))
	return c
}

// use has the runtime take our plugin from a directory, that of another release.
func (c *chain) use(dir string) {
	c.libcni = libcni.NewCNIConfigWithCacheDir([]string{built.plugins, dir}, filepath.Join(c.dir, "cache"), onNode{c.l, c.node})
}

// The plugins of the lists. Ours leaves its records where the others keep theirs.
const (
	ours      = `{"type": "evenkeel-cni", "pinDir": "PINS", "stateDir": "DIR/state", "runDir": "DIR/run", "exempt": ["kube-system"]}`
	portmap   = `{"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}`
	bandwidth = `{"type": "bandwidth", "ingressRate": 800000000, "ingressBurst": 80000000, "egressRate": 800000000, "egressBurst": 80000000}`
	tuning    = `{"type": "tuning"}`
	loopback  = `{"type": "loopback"}`
)

var (
	subnet4 = `[{"subnet": "10.88.0.0/16"}]`
	subnet6 = `[{"subnet": "fd00:88::/64"}]`
)

func bridge(ranges ...string) string {
	return `{"type": "bridge", "bridge": "cni0", "isGateway": true, ` + ipam(ranges...) + `}`
}

func ptp(ranges ...string) string { return `{"type": "ptp", ` + ipam(ranges...) + `}` }

func ipam(ranges ...string) string {
	return `"ipam": {"type": "host-local", "dataDir": "DIR/leases", "ranges": [` + strings.Join(ranges, ",") +
		`], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`
}

// onNode runs plugins on a node of a lab.
type onNode struct {
	l    *lab
	node string
}

// ExecPlugin starts a plugin as a runtime does: in the node's network namespace and in the cgroup of who starts it. To
// move it to another cgroup would take a grace period, which is longer than what some plugins take.
func (o onNode) ExecPlugin(ctx context.Context, path string, stdin []byte, environment []string) ([]byte, error) {
	command := exec.CommandContext(ctx, path)
	command.Env, command.Stdin = environment, bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := ns.WithNetNSPath(o.l.Node(o.node).Netns, func(ns.NetNS) error { return command.Run() }); err != nil {
		said := new(types.Error)
		if json.Unmarshal(out.Bytes(), said) != nil || said.Msg == "" {
			return nil, fmt.Errorf("%s: %w: %s%s", path, err, out.Bytes(), errs.Bytes())
		}
		return nil, said
	}
	return out.Bytes(), nil
}

func (o onNode) FindInPath(plugin string, paths []string) (string, error) {
	for _, dir := range paths {
		if path := filepath.Join(dir, plugin); exists(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("plugin %s is not in %v", plugin, paths)
}

func (o onNode) Decode(text []byte) (version.PluginInfo, error) {
	return new(version.PluginDecoder).Decode(text)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// sandbox is a network namespace that a runtime has made for a pod.
type sandbox struct {
	*chain
	id, pod, netns string
}

var sandboxes atomic.Int32

// sandbox makes one for a pod. What it leaves ends with the spec.
func (c *chain) sandbox(pod string) *sandbox {
	GinkgoHelper()
	s := &sandbox{chain: c, id: fmt.Sprintf("c%d-%d", os.Getpid(), sandboxes.Add(1)), pod: pod}
	s.netns = filepath.Join(c.dir, s.id)
	Expect(os.WriteFile(s.netns, nil, 0o600)).To(Succeed())
	Expect(exec.Command("unshare", "--net="+s.netns, "true").Run()).To(Succeed())
	DeferCleanup(s.end)
	return s
}

// end removes the namespace, as a runtime does after DEL.
func (s *sandbox) end() {
	_ = unix.Unmount(s.netns, unix.MNT_DETACH) // it may be gone already
	_ = os.Remove(s.netns)
}

func (s *sandbox) runtime(iface string) *libcni.RuntimeConf {
	namespace, name, _ := strings.Cut(s.pod, "/")
	return &libcni.RuntimeConf{
		ContainerID: s.id, NetNS: s.netns, IfName: iface,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", namespace}, {"K8S_POD_NAME", name},
			{"K8S_POD_INFRA_CONTAINER_ID", s.id}, {"K8S_POD_UID", "uid-" + s.id}},
		CapabilityArgs: map[string]any{"portMappings": []map[string]any{
			{"hostPort": 30000 + int(sandboxes.Add(1)), "containerPort": 80, "protocol": "tcp"}}},
	}
}

func (s *sandbox) add(ctx context.Context) error {
	_, err := s.libcni.AddNetworkList(ctx, s.list, s.runtime("eth0"))
	return err
}

func (s *sandbox) check(ctx context.Context) error {
	return s.libcni.CheckNetworkList(ctx, s.list, s.runtime("eth0"))
}

func (s *sandbox) del(ctx context.Context) error {
	return s.libcni.DelNetworkList(ctx, s.list, s.runtime("eth0"))
}

// Command runs in the sandbox, and in the cgroup of the node's pods.
func (s *sandbox) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	group := filepath.Join(s.l.cgroup("nodes", s.node), "sandboxes")
	return s.l.Node(s.node).Command(ctx, "sh", append([]string{"-c",
		`mkdir -p "$1" && echo $$ >"$1/cgroup.procs" && n="$2" && shift 2 && exec nsenter --net="$n" "$@"`, "sh", group, s.netns,
		name}, args...)...)
}

// leases are the addresses that host-local has given.
func (c *chain) leases() []string {
	found, err := filepath.Glob(filepath.Join(c.dir, "leases", c.list.Name, "*"))
	Expect(err).NotTo(HaveOccurred())
	return slices.DeleteFunc(found, func(path string) bool {
		name := filepath.Base(path)
		return name == "lock" || strings.HasPrefix(name, "last_reserved_ip.")
	})
}

// expectNothing fails if anything of the chain's sandboxes is left.
func (c *chain) expectNothing(ctx context.Context) {
	GinkgoHelper()
	Expect(c.leases()).To(BeEmpty())
	records, err := filepath.Glob(filepath.Join(c.dir, "run", "attachments", "*"))
	Expect(err).NotTo(HaveOccurred())
	Expect(records).To(BeEmpty())
	for name := range c.l.workloads(ctx, c.node) {
		Expect(name).NotTo(HavePrefix("meshed/"))
	}
}
