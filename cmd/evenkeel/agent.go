// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/admin"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/agent"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/metrics"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/cni"
)

func newAgentCommand(e command.Env) *cobra.Command {
	o := agent.Options{Sizes: bpf.DefaultSizes(), OnStart: agent.OnStartUpgrade}
	level, format, sourceCheck := "info", "text", true
	var y canarying
	var chain cniFlags
	chained := false
	c := &cobra.Command{
		Use:   "agent --node NAME --source PATH",
		Short: "Run the node agent",
		Long: `Run the node agent: it takes the data plane of this node over, or makes it, and keeps it in step with Kubernetes
manifests: Services, EndpointSlices, Pods and Nodes in a file or a directory, which it watches.

The data plane lives in the kernel. When the agent ends, however it ends, connections and new ones go on as they were;
the next agent takes over what it finds. 'evenkeel uninstall' is the only thing that removes it.

There is one agent for a pin directory. With NOTIFY_SOCKET set it says READY=1 once all programs are attached and all
manifests are applied. The same is told by 'GET /readyz?wait=10s' on the admin socket and, without a wait, by the
address of the metrics.`,
		Example: `  evenkeel agent --node $(hostname) --source /etc/evenkeel/manifests
  evenkeel agent --node n1 --source web.yaml --log-format json --metrics 127.0.0.1:15090
  evenkeel agent --node n1 --source /etc/evenkeel --take-over   # the running one hangs`,
		Args: command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Node == "" || len(o.Sources) == 0 {
				return command.Usage(c, errors.New("--node and --source are needed"))
			}
			if wrong := validation.IsDNS1123Subdomain(o.Node); len(wrong) > 0 {
				return command.Usage(c, fmt.Errorf("--node %q: no node of Kubernetes has that name: %s", o.Node, wrong[0]))
			}
			if _, _, err := net.SplitHostPort(o.Metrics); err != nil && o.Metrics != "" {
				return command.Usage(c, fmt.Errorf("--metrics %q: it is an address and a port, as 127.0.0.1:15090, or empty for none",
					o.Metrics))
			}
			if err := cleanSources(o.Sources); err != nil {
				return command.Usage(c, err)
			}
			if !slices.Contains(onStart, o.OnStart) {
				return command.Usage(c, fmt.Errorf("--on-start %q: %s are known", o.OnStart, strings.Join(onStart, ", ")))
			}
			var err error
			if o.Canary, err = y.canary(c); err != nil {
				return err
			}
			log, err := newLog(e.Stderr, level, format)
			if err != nil {
				return command.Usage(c, err)
			}
			if o.Cgroup == "" {
				if o.Cgroup, err = plane.CgroupRoot(); err != nil {
					return err
				}
			}
			if err := checkSizes(o.Sizes); err != nil {
				return command.Usage(c, err)
			}
			if c.Flags().Changed("source-check") {
				o.SourceCheck = &sourceCheck
			}
			if chained {
				chain.Conf.PinDir, chain.Conf.StateDir, chain.Conf.RunDir = o.Dir, o.StateDir, o.RunDir
				chain.sourceCheck = sourceCheck
				if err := chain.complete(c); err != nil {
					return err
				}
				chain.Log = log
				o.CNI = &chain.Options
			}
			o.Log, o.Release, o.Notify = log, currentVersion().Release, e.Getenv("NOTIFY_SOCKET")
			return agent.Run(c.Context(), o)
		},
	}
	c.Flags().BoolVar(&sourceCheck, "source-check", true, "check, or no longer check, the sources of all enrolled pods; "+
		"without this flag each keeps what it was enrolled with")
	c.Flags().StringVar(&level, "log-level", level, "least level that is logged: debug, info, warn, error")
	c.Flags().StringVar(&format, "log-format", format, "form of the log: text or json")
	c.Flags().BoolVar(&chained, "cni", false, "keep the CNI plugin in this node's chain; nothing but 'evenkeel cni "+
		"uninstall' takes it out")
	chain.chain(c.Flags(), "cni-")
	agentFlags(c, &o)
	y.flags(c)
	return c
}

var onStart = []string{agent.OnStartUpgrade, agent.OnStartAdopt, agent.OnStartRefuse}

func agentFlags(c *cobra.Command, o *agent.Options) {
	f := c.Flags()
	f.StringVar(&o.Node, "node", "", "name of this node, as its Node and Pod manifests have it")
	f.StringArrayVar(&o.Sources, "source", nil,
		"file or directory of manifests; of an object that several sources have the last one's counts")
	command.PathVar(f, &o.Dir, "pin-dir", enrolment.DefaultDir, "where the data plane is pinned, on a BPF file system")
	command.PathVar(f, &o.Cgroup, "cgroup", "", "cgroup below which the pods' processes are (default: the root of cgroup2)")
	command.PathVar(f, &o.Admin, "admin", admin.DefaultSocket, "socket that answers status, dump and explain")
	f.StringVar(&o.Metrics, "metrics", metrics.DefaultAddress, "address of the metrics, empty for none")
	f.BoolVar(&o.ByLabel, "enrol-by-label", false, "enrol and withdraw running pods by the label evenkeel.io/mesh of their "+
		"namespaces, enabled or disabled, or their own; and tell the CNI plugin")
	f.StringSliceVar(&o.NetnsDirs, "netns-dir", agent.NetnsDirs, "where the runtime has the files of network namespaces; in "+
		"those, and in processes, running pods are looked for")
	command.PathVar(f, &o.StateDir, "state-dir", cni.DefaultStateDir, "where the CNI plugin finds, after a boot, which pods have "+
		"to be in the mesh")
	command.PathVar(f, &o.RunDir, "run-dir", cni.DefaultRunDir, "where the CNI plugin leaves its records of pods")
	f.BoolVar(&o.TakeOver, "take-over", false, "kill the agent that is running, if one is, and go on from where it was")
	f.StringVar(&o.OnStart, "on-start", o.OnStart, "if another release serves, or other sizes: upgrade to this one, adopt what "+
		"serves, or refuse to start")
	f.DurationVar(&o.Window, "rollback-window", time.Hour, "how long after an upgrade one can go back")
	sizeFlags(f, &o.Sizes)
}

func sizeFlags(f *pflag.FlagSet, s *bpf.Sizes) {
	f.Uint32Var(&s.Services, "max-services", s.Services, "room for service ports: one per address, port and protocol")
	f.Uint32Var(&s.Endpoints, "max-endpoints", s.Endpoints, "room for endpoints, counted for each port they are behind")
	f.Uint32Var(&s.Workloads, "max-workloads", s.Workloads, "room for enrolled pods")
	f.Uint32Var(&s.Affinities, "max-affinities", s.Affinities, "room for session affinity: pairs of pod and service")
	f.Uint32Var(&s.Peers, "max-peers", s.Peers,
		"room for unconnected UDP: pairs of socket and service, from the second service of a socket on")
}

// cleanSources writes the paths in their shortest form. One that is given twice would be two sources of one name.
func cleanSources(paths []string) error {
	seen := map[string]bool{}
	for i, path := range paths {
		if path == "" {
			return errors.New("--source is empty: a file or a directory is needed")
		}
		paths[i] = filepath.Clean(path)
		if seen[paths[i]] {
			return fmt.Errorf("--source %s is given twice", paths[i])
		}
		seen[paths[i]] = true
	}
	return nil
}

// Bounds of the sizes: one of each, and what the kernel side can count in 32 bits with its reserve.
const maxSize = 1 << 26

func checkSizes(s bpf.Sizes) error {
	for flag, n := range map[string]uint32{
		"--max-services": s.Services, "--max-endpoints": s.Endpoints, "--max-workloads": s.Workloads,
		"--max-affinities": s.Affinities, "--max-peers": s.Peers,
	} {
		most := uint32(maxSize)
		if flag == "--max-workloads" {
			most = bpf.MostWorkloads
		}
		if n == 0 || n > most {
			return fmt.Errorf("%s %d: from 1 to %d", flag, n, most)
		}
	}
	return nil
}

func newLog(to io.Writer, level, format string) (*slog.Logger, error) {
	o := &slog.HandlerOptions{}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: debug, info, warn and error are known", level)
	}
	o.Level = l
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(to, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(to, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: text and json are known", format)
}
