// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/stopwatch"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// newBenchNodeCommand is what the benchmark runs on a simulated node.
func newBenchNodeCommand(e command.Env) *cobra.Command {
	o := stopwatch.Options{Sizes: bpf.DefaultSizes()}
	var of stopwatch.SwitchOptions
	functions := map[string]func(context.Context, stopwatch.Options) (stopwatch.Result, error){
		"sync-memory": stopwatch.SyncMemory, "sync-yaml": stopwatch.SyncYAML, "restart": stopwatch.Restart,
	}
	c := &cobra.Command{
		Use:    "node sync-memory|sync-yaml|restart|change|switch",
		Hidden: true,
		Args:   command.Exactly(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.Log, err = newLog(e.Stderr, "warn", "text"); err != nil {
				return err
			}
			switch args[0] {
			case "change":
				return stopwatch.Change(c.Context(), o, e.Stdin, e.Stdout)
			case "switch":
				all, err := stopwatch.Switch(c.Context(), o, of)
				if err != nil {
					return err
				}
				return json.NewEncoder(e.Stdout).Encode(all)
			}
			run := functions[args[0]]
			if run == nil {
				return command.Usage(c, fmt.Errorf("no such measurement: %s", args[0]))
			}
			r, err := run(c.Context(), o)
			if err != nil {
				return err
			}
			return json.NewEncoder(e.Stdout).Encode(r)
		},
	}
	f := c.Flags()
	command.PathVar(f, &o.Dir, "pin-dir", "", "where the data plane is pinned")
	command.PathVar(f, &o.Cgroup, "cgroup", "", "cgroup that it is attached to")
	command.PathVar(f, &o.Manifests, "manifests", "", "file with the cluster")
	f.Uint32Var(&o.Sizes.Endpoints, "max-endpoints", o.Sizes.Endpoints, "room for endpoints")
	f.IntVar(&of.Rounds, "rounds", 3, "rounds of switch")
	f.IntVar(&of.Connections, "connections", 1000, "established connections of switch")
	f.DurationVar(&of.Flips, "flips", time.Second, "how long switch changes the word, in a round")
	command.PathVar(f, &o.CPUProfile, "cpu-profile", "", "file to write a CPU profile to, of what is timed")
	command.PathVar(f, &o.HeapProfile, "heap-profile", "", "file to write what is on the heap to, once it is done")
	return c
}
