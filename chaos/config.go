// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/evenkeel/evenkeel/netsim"
)

// Config says what the suites run on. Its zero value, but for Binaries, is what this project's own tests run on.
type Config struct {
	// Binaries is the directory of evenkeel and evenkeel-chaos. Builds that do wrong on purpose, which specs labelled
	// build:control need, are in control/NAME/ below it.
	Binaries string
	// Chaos is evenkeel-chaos, if it is not in Binaries: flows and faults run as processes of it.
	Chaos string
	// Dataplane is what the labs of the suites run: none, evenkeel, ambient or ztunnel. Empty means evenkeel.
	Dataplane string
	// Ztunnel is the program of data plane ztunnel.
	Ztunnel string
	// Topology is a topology file that labs are made of, in place of the suites' own; what the suites dial is added to
	// its first two nodes. Manifests is a directory of Kubernetes documents that are served as well.
	Topology, Manifests string
	// From and To are evenkeel of two releases. Labs begin with From, and specs of upgrades go to To. Empty means the
	// one in Binaries.
	From, To string
	// Seed decides everything that is drawn at random; 0 means Ginkgo's seed.
	Seed uint64
	// Schedule are the faults of the random walk, as it prints them, in place of drawn ones.
	Schedule []string
}

// config is what the specs see.
var config = Config{Binaries: "../bin"}

// Configure says what the suites run on; call it before RunSpecs. The error says which field cannot be used, and why.
// Whether there are programs where they should be is checked when specs run.
func Configure(c Config) error {
	var errs []error
	for _, path := range []*string{&c.Binaries, &c.Chaos, &c.Topology, &c.Manifests, &c.From, &c.To, &c.Ztunnel} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err == nil {
			*path = absolute
		}
		errs = append(errs, err)
	}
	if c.Topology != "" {
		_, err := netsim.ParseFile(c.Topology)
		errs = append(errs, err)
	}
	if c.Manifests != "" {
		entries, err := os.ReadDir(c.Manifests)
		if err == nil && len(entries) == 0 {
			err = fmt.Errorf("read manifests: directory %s is empty", c.Manifests)
		}
		errs = append(errs, err)
	}
	switch c.Dataplane {
	case "":
		c.Dataplane = "evenkeel"
	case "none", "evenkeel", "ambient", "ztunnel":
	default:
		errs = append(errs, fmt.Errorf("data plane %q is unknown: there are none, evenkeel, ambient and ztunnel", c.Dataplane))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure suites: %w", err)
	}
	config = c
	return nil
}

// evenkeel is the program of the labs.
func evenkeel() string {
	if config.From != "" {
		return config.From
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
