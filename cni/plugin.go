// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/evenkeel/evenkeel/engine/enrol"
)

// ErrNotServing says that no generation of a data plane serves at a directory: none was installed since the node
// booted, or it is being made or removed.
var ErrNotServing = errors.New("the data plane does not serve")

// DataPlane opens what is pinned on the node. The command has one of package upgrade's making.
type DataPlane interface {
	// Open opens the pinned data plane for enrolment. It returns an error that wraps ErrNotServing if there is none.
	Open(ctx context.Context, pinDir string) (enrol.Options, func() error, error)
	// Lacking says what of the data plane of the node is not where it should be. Errors are as of Open.
	Lacking(pinDir string) ([]string, error)
}

const (
	// limit is how long a call may take: a runtime's worker waits for it.
	limit = 5 * time.Second
	// margin is what is left of that for saying that it was not enough.
	margin = 500 * time.Millisecond
)

// versions are those of the specification that the plugin speaks.
var versions = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

// Codes of errors that the specification leaves to plugins.
const (
	codeRefused uint = 100 // a rule forbids what was decided
	codeEnrol   uint = 101 // enrolment went wrong
)

// Plugin answers one call of a runtime: the environment has the verb, standard input the configuration.
type Plugin struct {
	Plane          DataPlane
	Stdout, Stderr io.Writer
	About          string // said to a person who starts it by hand

	answer sync.Once // one result or one error, whoever comes first
	result []byte
}

// Run does what the environment of this process asks for and returns the exit code. On standard output is the result,
// or an error as the specification has it, and nothing else.
func (p *Plugin) Run(ctx context.Context) int {
	verb := os.Getenv("CNI_COMMAND")
	// What ends in time ends by ctx. What hangs in the kernel, or waits for input, does not look at that: then the
	// process ends as if it had been killed, which is always safe.
	late := time.AfterFunc(limit, func() {
		err := types.NewError(types.ErrTryAgainLater, fmt.Sprintf("%s took longer than %v", verb, limit), "")
		p.answer.Do(func() { os.Exit(p.fail(verb, err)) })
	})
	defer late.Stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit-margin, fmt.Errorf("%s took longer than %v", verb, limit-margin))
	defer cancel()
	failed := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    func(a *skel.CmdArgs) error { return p.call(ctx, a, p.add) },
		Del:    func(a *skel.CmdArgs) error { return p.call(ctx, a, p.del) },
		Check:  func(a *skel.CmdArgs) error { return p.call(ctx, a, p.check) },
		GC:     func(a *skel.CmdArgs) error { return p.call(ctx, a, p.gc) },
		Status: func(a *skel.CmdArgs) error { return p.call(ctx, a, p.status) },
	}, versions, p.About)
	code := 0
	p.answer.Do(func() {
		if failed != nil {
			code = p.fail(verb, failed)
			return
		}
		if _, err := p.Stdout.Write(p.result); err != nil {
			fmt.Fprintln(p.Stderr, "write result:", err)
			code = 1
		}
	})
	return code
}

// call is what a verb is given.
type call struct {
	*Conf
	*skel.CmdArgs
	records Attachments
}

func (p *Plugin) call(ctx context.Context, args *skel.CmdArgs, do func(context.Context, *call) error) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	return do(ctx, &call{conf, args, OpenAttachments(conf.RunDir)})
}

// answered is an error as the specification has it: types.Error lacks the version.
type answered struct {
	CNIVersion string `json:"cniVersion"`
	*types.Error
}

// fail prints an error and returns the exit code. DEL is forgiven a namespace that is the plugin's own, which skel
// finds after all is done.
func (p *Plugin) fail(verb string, err *types.Error) int {
	if verb == "DEL" && (err.Code == types.ErrInvalidNetNS || err.Code == types.ErrTryAgainLater) {
		return 0
	}
	text, failed := json.MarshalIndent(answered{version.Current(), err}, "", "  ")
	if failed == nil {
		_, failed = p.Stdout.Write(append(text, '\n'))
	}
	if failed != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", err, failed)
	}
	return 1
}
