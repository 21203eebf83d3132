// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Options say how a lab is made. The zero value is a lab that belongs to this process.
type Options struct {
	// Binary is the evenkeel that labs run: agents, enrolment, servers, commands. Empty means this program, which
	// must then be evenkeel itself.
	Binary string
	// Agent is the evenkeel that agents run where it is not Binary; see Lab.UseAgent.
	Agent string
	// Ztunnel is the ztunnel that labs with that data plane run.
	Ztunnel string
	// Detached makes a lab that outlives this process, until it is taken down. Other labs are garbage once it has ended.
	Detached bool
	// Progress, if not nil, is told how far a stage has come. It may be called from several goroutines at once.
	Progress func(stage string, done, total int)
}

// complete fills in what was left empty.
func (o Options) complete() (Options, error) {
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	if o.Binary != "" {
		binary, err := filepath.Abs(o.Binary)
		if err != nil {
			return o, fmt.Errorf("find binary %s: %w", o.Binary, err)
		}
		o.Binary = binary
		return o, nil
	}
	self, err := os.Executable()
	if err != nil {
		return o, fmt.Errorf("find this program: %w", err)
	}
	if filepath.Base(self) != "evenkeel" {
		return o, errors.New("netsim: Options.Binary is empty and this program is not evenkeel: name the evenkeel to run")
	}
	o.Binary = self
	return o, nil
}

// steps returns what is to be called after each of total steps of a stage.
func (o Options) steps(stage string, total int) func() {
	if total == 0 {
		return func() {}
	}
	o.Progress(stage, 0, total)
	count := newCounter()
	return func() { o.Progress(stage, count(), total) }
}
