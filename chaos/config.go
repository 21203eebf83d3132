// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/evenkeel/evenkeel/chaos/schedule"
	"github.com/evenkeel/evenkeel/netsim"
)

// Config says what the suites run on. Its zero value, but for Binaries, is what this project's own tests run on.
type Config struct {
	// Binaries is the directory of evenkeel and evenkeel-chaos. Builds that do wrong on purpose, which specs labelled
	// build:control need, are in control/NAME/ below it.
	Binaries string
	// Chaos is evenkeel-chaos, if it is not in Binaries: flows and faults run as processes of it.
	Chaos string
	// Ztunnel is the program of data plane ztunnel.
	Ztunnel string
	// Rollout, if not nil, is a step from one release to another on somebody's own topology: the suite of that name is the
	// only one that there is then.
	Rollout *Rollout
	// Schedule is what the random walk does in place of what it would draw.
	Schedule schedule.Schedule
}

// Rollout is a step from one release to another.
type Rollout struct {
	// From and To are the evenkeel of the two releases.
	From, To string
	// Topology is the lab, whose documents are what the agents read. Servers and commands of its pods are not started: flow
	// servers take their places.
	Topology *netsim.Topology
}

// config is what the specs see.
var config = Config{Binaries: "../bin"}

// Configure says what the suites run on; call it before RunSpecs. The error says which field cannot be used, and why.
// Whether there are programs where they should be is checked when specs run.
func Configure(c Config) error {
	var errs []error
	paths := []*string{&c.Binaries, &c.Chaos, &c.Ztunnel}
	if c.Rollout != nil {
		paths = append(paths, &c.Rollout.From, &c.Rollout.To)
	}
	for _, path := range paths {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err == nil {
			*path = absolute
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure suites: %w", err)
	}
	config = c
	return nil
}

// evenkeel is the program of the labs.
func evenkeel() string {
	if config.Rollout != nil {
		return config.Rollout.From
	}
	return binary("evenkeel")
}

// instrument is the program of flows and faults.
func instrument() string {
	if config.Chaos != "" {
		return config.Chaos
	}
	return binary("evenkeel-chaos")
}
