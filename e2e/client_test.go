// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// place is where a client can run: a pod, or a node outside all pods.
type place interface {
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
}

// result is what a finished command left.
type result struct {
	stdout, stderr string
	code           int
}

// runIn runs a command to its end. Only a command that could not be started fails the spec: exit codes are for the
// caller to judge.
func runIn(ctx context.Context, where place, stdin io.Reader, name string, args ...string) result {
	GinkgoHelper()
	command := where.Command(ctx, name, args...)
	command.Stdin = stdin
	return finish(command)
}

// finish runs a command that was prepared.
func finish(command *exec.Cmd) result {
	GinkgoHelper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		Fail(fmt.Sprintf("run %q: %v", command.Args, err))
	}
	return result{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// ask runs the client tool to its end and returns the lines that it printed.
func ask[T any](ctx context.Context, where place, args ...string) []T {
	GinkgoHelper()
	got := runIn(ctx, where, nil, built.client, args...)
	Expect(got.code).To(BeZero(), "client %q: %s", args, got.stderr)
	var lines []T
	for decoder := json.NewDecoder(bytes.NewBufferString(got.stdout)); decoder.More(); {
		var line T
		Expect(decoder.Decode(&line)).To(Succeed(), "client %q: %s", args, got.stdout)
		lines = append(lines, line)
	}
	return lines
}

// attempt makes one connection or asks one datagram.
func attempt(ctx context.Context, where place, args ...string) report.Attempt {
	GinkgoHelper()
	attempts := ask[report.Attempt](ctx, where, args...)
	Expect(attempts).To(HaveLen(1))
	return attempts[0]
}

// answerOf asks an echo server by TCP and returns what came back: "ping", whatever else answers, or the error.
func answerOf(ctx context.Context, where place, to string) string {
	GinkgoHelper()
	got := attempt(ctx, where, "tcp", "-say", "ping", to)
	return got.Answer + got.Errno
}

// running is a client tool that goes on until it is stopped.
type running[T any] struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	stderr  *gbytes.Buffer
	read    chan struct{} // closed when its output has ended

	mu    sync.Mutex
	lines []T
	bad   error // of a line that is none
}

// start runs the client tool beside the spec, which stops it at the latest when it ends.
func start[T any](ctx context.Context, where place, args ...string) *running[T] {
	GinkgoHelper()
	// Its life is not the node's that started it: an Ordered container may start clients in BeforeAll.
	r := &running[T]{command: where.Command(context.WithoutCancel(ctx), built.client, args...), stderr: gbytes.NewBuffer()}
	var err error
	r.stdin, err = r.command.StdinPipe()
	Expect(err).NotTo(HaveOccurred())
	stdout, err := r.command.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	r.command.Stderr = r.stderr
	Expect(r.command.Start()).To(Succeed(), "client %q", args)
	r.read = make(chan struct{})
	go r.collect(stdout)
	DeferCleanup(func() { r.stop() })
	return r
}

func (r *running[T]) collect(stdout io.Reader) {
	defer close(r.read)
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var line T
		err := json.Unmarshal(lines.Bytes(), &line)
		r.mu.Lock()
		if err != nil {
			r.bad = fmt.Errorf("parse %q: %w", lines.Text(), err)
		} else {
			r.lines = append(r.lines, line)
		}
		r.mu.Unlock()
	}
}

// seen returns the lines so far.
func (r *running[T]) seen() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]T(nil), r.lines...)
}

// say writes a line to the client's standard input.
func (r *running[T]) say(line string) {
	GinkgoHelper()
	_, err := io.WriteString(r.stdin, line+"\n")
	Expect(err).NotTo(HaveOccurred())
}

// stop ends the client and returns all lines. It may be called again.
func (r *running[T]) stop() []T {
	GinkgoHelper()
	if r.command.ProcessState == nil {
		r.stdin.Close()
		<-r.read
		Expect(r.command.Wait()).To(Succeed(), "client %q: %s", r.command.Args, r.stderr.Contents())
		Expect(r.bad).NotTo(HaveOccurred(), "client %q", r.command.Args)
	}
	return r.seen()
}

// flows are exchanges that go on while something happens.
type flows struct{ *running[report.Flow] }

// hold starts a flow for each KIND=ADDRESS:PORT and returns when each has been answered once.
func hold(ctx context.Context, where place, args ...string) flows {
	GinkgoHelper()
	f := flows{start[report.Flow](ctx, where, append([]string{"hold"}, args...)...)}
	want := 0
	for _, arg := range args {
		if strings.Contains(arg, "=") && !strings.HasPrefix(arg, "-") {
			want++
		}
	}
	Eventually(ctx, func() int { return len(f.events("ready")) }).Should(Equal(want), func() string {
		return fmt.Sprintf("flows %q are answered; stderr: %s", args, f.stderr.Contents())
	})
	return f
}

// events returns the lines of that event.
func (f flows) events(event string) []report.Flow {
	var found []report.Flow
	for _, line := range f.seen() {
		if line.Event == event {
			found = append(found, line)
		}
	}
	return found
}

// advance waits until each flow has made that many more requests, whatever came of them.
func (f flows) advance(ctx context.Context, requests uint64) {
	GinkgoHelper()
	made := func() map[int]uint64 {
		latest := map[int]uint64{}
		for _, line := range f.seen() {
			latest[line.Index] = line.Done + line.Failed
		}
		return latest
	}
	before := made()
	Eventually(ctx, func() bool {
		for index, n := range made() {
			if n < before[index]+requests {
				return false
			}
		}
		return true
	}).Should(BeTrue(), "each flow makes %d requests more", requests)
}

// expectUnharmed ends the flows: each went on, none failed once.
func (f flows) expectUnharmed() []report.Flow {
	GinkgoHelper()
	f.stop()
	ends := f.events("end")
	Expect(ends).To(HaveLen(len(f.events("ready"))), "every flow ends with its totals: %s", f.stderr.Contents())
	for _, flow := range ends {
		Expect(flow.Failed).To(BeZero(), "%s to %s: %d failed of %d, first: %s",
			flow.Kind, flow.To, flow.Failed, flow.Done+flow.Failed, flow.Error)
		Expect(flow.Done).To(BeNumerically(">", 0), "%s to %s made requests", flow.Kind, flow.To)
	}
	return ends
}
