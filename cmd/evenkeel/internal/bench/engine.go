// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/stopwatch"
	"github.com/evenkeel/evenkeel/netsim"
)

// Metrics of the engine.
const (
	metricSeconds = "seconds"
	metricWrites  = "writes" // map elements
	metricP50     = "p50"    // of single changes in a batch, milliseconds
	metricP99     = "p99"
)

// engineSizes has room for 100,000 endpoints and what replaces some of them.
const engineSizes = "--max-endpoints=110000"

// engineSite has a node on which package stopwatch installs the data plane.
func (s *session) engineSite(ctx context.Context) (*site, error) {
	if s.engine == nil {
		at, err := s.newSite(ctx, "engine", netsim.None)
		if err != nil {
			return nil, fmt.Errorf("build a node: %w", err)
		}
		s.engine = at
	}
	return s.engine, nil
}

// manifests returns a file with a cluster of a scale; each is written once.
func (s *session) manifests(of Scale) (string, error) {
	path, there := s.files[of]
	if there {
		return path, nil
	}
	path = filepath.Join(s.dir, fmt.Sprintf("%d-services-of-%d.yaml", of.Services, of.Endpoints))
	if err := of.writeFile(path); err != nil {
		return "", err
	}
	s.files[of] = path
	return path, nil
}

// place is where a command can run.
type place interface {
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
}

// nodeCommand runs a function of package stopwatch.
func (s *session) nodeCommand(ctx context.Context, where place, at *site, what string, of Scale) (*exec.Cmd, error) {
	file, err := s.manifests(of)
	if err != nil {
		return nil, err
	}
	info := at.lab.Info().Nodes[0]
	return where.Command(ctx, s.binary, "bench", "node", what, "--pin-dir", info.PinDir, "--cgroup", info.Cgroup,
		"--manifests", file, engineSizes), nil
}

// runNode runs a function of package stopwatch in a process of its own.
func (s *session) runNode(ctx context.Context, at *site, what string, of Scale) (r stopwatch.Result, used time.Duration, err error) {
	command, err := s.nodeCommand(ctx, at.lab.Node(nodeName), at, what, of)
	if err != nil {
		return r, 0, err
	}
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return r, 0, fmt.Errorf("%s: %w: %s", what, err, bytes.TrimSpace(stderr.Bytes()))
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, 0, fmt.Errorf("read result of %s: %w", what, err)
	}
	return r, command.ProcessState.UserTime() + command.ProcessState.SystemTime(), nil
}

// uninstall removes the data plane of a site's node.
func (s *session) uninstall(ctx context.Context, at *site) error {
	command := at.lab.Node(nodeName).Command(ctx, s.binary, "uninstall", "--pin-dir", at.lab.Info().Nodes[0].PinDir)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("uninstall the data plane: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// sync takes the time of a full sync, each time on a data plane that is new.
func (s *session) sync(ctx context.Context, trial, what string, of Scale) (Series, error) {
	at, err := s.engineSite(ctx)
	if err != nil {
		return Series{}, err
	}
	block := func(ctx context.Context) (map[string]float64, time.Duration, error) {
		r, used, err := s.runNode(ctx, at, what, of)
		if err := errors.Join(err, s.uninstall(ctx, at)); err != nil {
			return nil, 0, err
		}
		return map[string]float64{metricSeconds: r.Seconds, metricWrites: float64(r.Writes)}, used, nil
	}
	return s.time(ctx, trial, []arm{{Mesh, block}}, s.effort.starts)
}

// restart takes the time of a restart at which nothing has changed. A single map write is a failure, whatever the time.
func (s *session) restart(ctx context.Context, trial string, of Scale) (series Series, err error) {
	at, err := s.engineSite(ctx)
	if err != nil {
		return Series{}, err
	}
	defer func() { err = errors.Join(err, s.uninstall(context.WithoutCancel(ctx), at)) }()
	if _, _, err := s.runNode(ctx, at, "sync-memory", of); err != nil {
		return Series{}, err
	}
	block := func(ctx context.Context) (map[string]float64, time.Duration, error) {
		r, used, err := s.runNode(ctx, at, "restart", of)
		if err == nil && r.Writes != 0 {
			err = fmt.Errorf("a restart at which nothing had changed wrote %d map elements", r.Writes)
		}
		return map[string]float64{metricSeconds: r.Seconds, metricWrites: float64(r.Writes)}, used, err
	}
	return s.time(ctx, trial, []arm{{Mesh, block}}, s.effort.starts)
}

// change takes the time of single changes, in batches of which each is a round.
func (s *session) change(ctx context.Context, trial string, of Scale) (series Series, err error) {
	at, err := s.meshSite(ctx)
	if err != nil {
		return Series{}, err
	}
	// The process takes the data plane over and connects by itself, so it is in a pod, and no agent may be running.
	if err := at.stopAgent(ctx); err != nil {
		return Series{}, err
	}
	c, err := s.startChanger(ctx, at, at.pairs[0].client, of)
	if err != nil {
		return Series{}, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	block := func(context.Context) (map[string]float64, time.Duration, error) {
		before, err := load.CPUTime(c.command.Process.Pid)
		if err != nil {
			return nil, 0, err
		}
		r, err := c.do(stopwatch.Order{Changes: s.effort.changes})
		if err != nil {
			return nil, 0, err
		}
		after, err := load.CPUTime(c.command.Process.Pid)
		const milliseconds = 1e3
		return map[string]float64{
			metricP50:    milliseconds * sample.Quantile(r.Took, 0.50),
			metricP99:    milliseconds * sample.Quantile(r.Took, 0.99),
			metricWrites: float64(r.Writes) / float64(len(r.Took)),
		}, after - before, err
	}
	return s.time(ctx, trial, []arm{{Mesh, block}}, s.effort.batches)
}

// changer is a process of stopwatch.Change.
type changer struct {
	*child
	answers *json.Decoder
}

// startChanger returns when everything is in the maps.
func (s *session) startChanger(ctx context.Context, at *site, pod *netsim.Pod, of Scale) (*changer, error) {
	command, err := s.nodeCommand(ctx, pod, at, "change", of)
	if err != nil {
		return nil, err
	}
	started, err := startChild("change", command)
	if err != nil {
		return nil, err
	}
	c := &changer{child: started, answers: json.NewDecoder(started.stdout)}
	var ready stopwatch.Result
	if err := c.answers.Decode(&ready); err != nil {
		return nil, c.failed(fmt.Errorf("start change: %w", err))
	}
	return c, nil
}

func (c *changer) do(order stopwatch.Order) (r stopwatch.Result, err error) {
	if err := json.NewEncoder(c.stdin).Encode(order); err != nil {
		return r, c.failed(fmt.Errorf("order changes: %w", err))
	}
	if err := c.answers.Decode(&r); err != nil {
		return r, c.failed(fmt.Errorf("read changes: %w", err))
	}
	return r, nil
}
