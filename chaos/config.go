// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/evenkeel/evenkeel/chaos/schedule"
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
	// Schedule is what the random walk does in place of what it would draw.
	Schedule schedule.Schedule
}

// config is what the specs see.
var config = Config{Binaries: "../bin"}

// Configure says what the suites run on; call it before RunSpecs. The error says which field cannot be used, and why.
// Whether there are programs where they should be is checked when specs run.
func Configure(c Config) error {
	var errs []error
	for _, path := range []*string{&c.Binaries, &c.Chaos, &c.Ztunnel} {
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
func evenkeel() string { return binary("evenkeel") }

// instrument is the program of flows and faults.
func instrument() string {
	if config.Chaos != "" {
		return config.Chaos
	}
	return binary("evenkeel-chaos")
}
