// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const pauseImage = "evenkeel.io/e2e/pause:1"

// containerd is a container runtime on a node, with directories of its own.
type containerd struct {
	l         *lab
	node, dir string
	client    cri.RuntimeServiceClient
}

// newContainerd starts one. Without CAP_SYS_RESOURCE, as in many a machine for tests, runc may not lower
// oom_score_adj; overlayfs may be missing, so layers are copied.
func newContainerd(ctx SpecContext, l *lab, node string) *containerd {
	GinkgoHelper()
	c := &containerd{l: l, node: node}
	var err error
	c.dir, err = os.MkdirTemp("/run", "evenkeel-e2e-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { c.removeDir() })
	socket := filepath.Join(c.dir, "sock")
	config := strings.ReplaceAll(`version = 2
root = "DIR/root"
state = "DIR/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "DIR/sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "`+pauseImage+`"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "DIR/bin"
    conf_dir = "DIR/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`, "DIR", c.dir)
	for _, dir := range []string{"bin", "net.d"} {
		Expect(os.Mkdir(filepath.Join(c.dir, dir), 0o755)).To(Succeed())
	}
	Expect(os.WriteFile(filepath.Join(c.dir, "config.toml"), []byte(config), 0o600)).To(Succeed())
	for _, plugin := range []string{"bridge", "host-local", "portmap", "loopback"} {
		Expect(os.Symlink(filepath.Join(built.plugins, plugin), filepath.Join(c.dir, "bin", plugin))).To(Succeed())
	}
	c.start(ctx, socket)
	return c
}

func (c *containerd) start(ctx SpecContext, socket string) {
	GinkgoHelper()
	log, err := os.Create(filepath.Join(c.dir, "log"))
	Expect(err).NotTo(HaveOccurred())
	defer log.Close()
	daemon := c.l.Node(c.node).Command(context.WithoutCancel(ctx), "containerd", "--config", filepath.Join(c.dir, "config.toml"))
	daemon.Stdout, daemon.Stderr = log, log
	Expect(daemon.Start()).To(Succeed())
	DeferCleanup(func() {
		if text, err := os.ReadFile(log.Name()); err == nil && CurrentSpecReport().Failed() {
			AddReportEntry("containerd", string(text), ReportEntryVisibilityFailureOrVerbose)
		}
		_ = daemon.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = daemon.Wait()
	})
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(connection.Close)
	c.client = cri.NewRuntimeServiceClient(connection)
	Eventually(ctx, func() error {
		_, err := c.client.Version(ctx, &cri.VersionRequest{})
		return err
	}).Should(Succeed(), "containerd answers")
	image := filepath.Join(c.dir, "pause.tar")
	Expect(os.WriteFile(image, pause(), 0o600)).To(Succeed())
	out, err := exec.CommandContext(ctx, "ctr", "-a", socket, "-n", "k8s.io", "images", "import", "--snapshotter", "native", image).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}

// removeDir also unmounts what sandboxes have left mounted.
func (c *containerd) removeDir() {
	for _, m := range mounts() {
		if strings.HasPrefix(m.point, c.dir+"/") {
			_ = unix.Unmount(m.point, unix.MNT_DETACH)
		}
	}
	Expect(os.RemoveAll(c.dir)).To(Succeed())
}

// pause is an image with one static binary that waits, as docker save would write it.
func pause() []byte {
	GinkgoHelper()
	binary, err := os.ReadFile(built.client)
	Expect(err).NotTo(HaveOccurred())
	layer := archive(map[string][]byte{"pause": binary})
	config, err := json.Marshal(map[string]any{
		"architecture": arch(), "os": "linux", "config": map[string]any{"Entrypoint": []string{"/pause", "swallow", "1"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	Expect(err).NotTo(HaveOccurred())
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": "config.json", "RepoTags": []string{pauseImage}, "Layers": []string{"layer.tar"}}})
	Expect(err).NotTo(HaveOccurred())
	return archive(map[string][]byte{"manifest.json": manifest, "config.json": config, "layer.tar": layer})
}

func arch() string {
	out, err := exec.Command("uname", "-m").Output()
	Expect(err).NotTo(HaveOccurred())
	if strings.TrimSpace(string(out)) == "aarch64" {
		return "arm64"
	}
	return "amd64"
}

func archive(files map[string][]byte) []byte {
	GinkgoHelper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, text := range files {
		Expect(w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))})).To(Succeed())
		_, err := w.Write(text)
		Expect(err).NotTo(HaveOccurred())
	}
	Expect(w.Close()).To(Succeed())
	return out.Bytes()
}

// run makes a sandbox, and returns its id.
func (c *containerd) run(ctx context.Context, pod string) (string, error) {
	namespace, name, _ := strings.Cut(pod, "/")
	group := strings.TrimPrefix(c.l.cgroup("nodes", c.node), cgroup2())
	answer, err := c.client.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: "uid-" + name},
		LogDirectory: c.dir, Linux: &cri.LinuxPodSandboxConfig{CgroupParent: group},
	}})
	return answer.GetPodSandboxId(), err
}

func (c *containerd) stop(ctx context.Context, id string) {
	GinkgoHelper()
	_, err := c.client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	Expect(err).NotTo(HaveOccurred())
	_, err = c.client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	Expect(err).NotTo(HaveOccurred())
}

var _ = Describe("A real containerd", func() {
	const to = "10.96.0.10:7"

	It("makes pods of the mesh before, while and after an agent is dead or upgraded, and leaves nothing", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		l := newLab(ctx, byLabel(dir)+`
  - {name: web, node: a, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10"))+meshedNamespaces)
		l.expectPorts(ctx, "a", 6)
		swallow(ctx, l, "a", "7", "80")
		Eventually(func() bool { return exists(l.pins("a") + "_decisions1") }).Should(BeTrue())
		c := newContainerd(ctx, l, "a")
		list := `{"cniVersion": "1.0.0", "name": "net", "plugins": [` + bridge(subnet4) + `, ` + portmap + `]}`
		primary := filepath.Join(c.dir, "net.d", "10-net.conflist")
		Expect(os.WriteFile(primary, []byte(strings.ReplaceAll(list, "DIR", c.dir)), 0o600)).To(Succeed())
		flags := []string{"--conf-dir", filepath.Join(c.dir, "net.d"), "--bin-dir", filepath.Join(c.dir, "bin")}
		install := append([]string{"cni", "install", "--pin-dir", l.pins("a"), "--state-dir", dir, "--run-dir", dir}, flags...)
		got := runIn(ctx, host{}, nil, l.binary, install...)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(got.stdout).To(ContainSubstring("bridge, portmap, evenkeel-cni"))
		Eventually(ctx, func() (bool, error) {
			status, err := c.client.Status(ctx, &cri.StatusRequest{})
			if err != nil {
				return false, err
			}
			for _, condition := range status.GetStatus().GetConditions() {
				if !condition.GetStatus() {
					return false, fmt.Errorf("%s: %s", condition.GetType(), condition.GetMessage())
				}
			}
			return true, nil
		}).Should(BeTrue(), "the runtime has read the chain")

		chain := &chain{l: l, node: "a", dir: dir}
		inside := func(id string) place {
			GinkgoHelper()
			records, err := filepath.Glob(filepath.Join(dir, "attachments", id, "eth0"))
			Expect(err).NotTo(HaveOccurred())
			Expect(records).To(HaveLen(1), "ADD was called for it")
			text, err := os.ReadFile(records[0])
			Expect(err).NotTo(HaveOccurred())
			var record struct{ Netns string }
			Expect(json.Unmarshal(text, &record)).To(Succeed())
			return &sandbox{chain: chain, id: id, netns: record.Netns}
		}
		first, err := c.run(ctx, "meshed/first")
		Expect(err).NotTo(HaveOccurred())
		Expect(answerOf(ctx, inside(first), to)).To(Equal("ping"))
		plain, err := c.run(ctx, "elsewhere/plain")
		Expect(err).NotTo(HaveOccurred())
		Expect(answerOf(ctx, inside(plain), to)).To(Equal("swallowed"))
		Expect(l.stopAgent(ctx, "a", syscall.SIGKILL)).NotTo(Succeed())
		second, err := c.run(ctx, "meshed/second")
		Expect(err).NotTo(HaveOccurred())
		Expect(answerOf(ctx, inside(second), to)).To(Equal("ping"), "no agent runs")
		c.stop(ctx, first)
		other := &lab{l.Lab, l.name, built.controls["miss_passes"]}
		got = other.evenkeel(ctx, "a", "upgrade", "apply")
		Expect(got.code).To(BeZero(), "%+v", got)
		third, err := c.run(ctx, "meshed/third")
		Expect(err).NotTo(HaveOccurred())
		l.startAgent(ctx, "a") // which goes back to its own release
		fourth, err := c.run(ctx, "meshed/fourth")
		Expect(err).NotTo(HaveOccurred())
		for _, id := range []string{second, third, fourth} {
			Expect(answerOf(ctx, inside(id), to)).To(Equal("ping"))
		}
		for _, id := range []string{second, third, fourth, plain} {
			c.stop(ctx, id)
		}
		leases, err := filepath.Glob(filepath.Join(c.dir, "leases", "net", "10.*"))
		Expect(err).NotTo(HaveOccurred())
		Expect(leases).To(BeEmpty())
		records, err := filepath.Glob(filepath.Join(dir, "attachments", "*"))
		Expect(err).NotTo(HaveOccurred())
		Expect(records).To(BeEmpty())
		for name := range l.workloads(ctx, "a") {
			Expect(name).NotTo(HavePrefix("meshed/"))
		}
		got = runIn(ctx, host{}, nil, l.binary, append([]string{"cni", "uninstall"}, flags...)...)
		Expect(got.code).To(BeZero(), "%+v", got)
	}, SpecTimeout(2*time.Minute))
})
