// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/engine/manifest"
)

// answer is what became of a pod. In a batch it is one line of JSON.
type answer struct {
	Pod      string `json:"pod"`
	Enrolled bool   `json:"enrolled"`
	// Reason is a sentence on why it is not enrolled. Code is that of a rule (see package enrol) where one
	// forbids it, "error" where something went wrong.
	Reason string `json:"reason,omitempty"`
	Code   string `json:"code,omitempty"`
	// Changed is whether anything had to be done.
	Changed   bool     `json:"changed"`
	Cookie    uint64   `json:"cookie,omitempty"` // of the network namespace
	Addresses []string `json:"addresses"`
	Ignored   []string `json:"ignoredAddresses"` // further ones: the pod is known by one of each family

	withdrawn bool
}

// sentence is the answer for people.
func (a answer) sentence() string {
	switch {
	case a.withdrawn && a.Changed:
		return a.Pod + " is withdrawn"
	case a.withdrawn:
		return a.Pod + " was not enrolled"
	}
	s := fmt.Sprintf("%s is enrolled with %s", a.Pod, strings.Join(a.Addresses, " and "))
	if len(a.Ignored) > 0 {
		s += fmt.Sprintf("; of no account are its further addresses %s", strings.Join(a.Ignored, ", "))
	}
	return s
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

const (
	// batchWorkers is how many pods are worked on at once. The kernel attaches one program to an interface at a time,
	// so more than two do not help.
	batchWorkers = 2
	// maxBatchLine is the size of a line in bytes.
	maxBatchLine = 64 << 10
)

// batch does the pods that a stream names.
type batch struct {
	options enrol.Options
	facts   podFacts
	do      act
	out     io.Writer

	mu     sync.Mutex // one answer at a time
	failed int
}

// request is one line of a batch.
type request struct {
	Netns string `json:"netns"`
	Pod   string `json:"pod"`
}

// run returns an error if a line could not be done; all others are.
func (b *batch) run(ctx context.Context, in io.Reader) error {
	workers, working := errgroup.WithContext(ctx) // over when Wait returns, so not to be asked afterwards
	workers.SetLimit(batchWorkers)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxBatchLine)
	number := 0
	for lines.Scan() && working.Err() == nil {
		number++
		line := bytes.Clone(bytes.TrimSpace(lines.Bytes()))
		if len(line) == 0 {
			continue
		}
		at := number
		workers.Go(func() error { return b.line(working, at, line) })
	}
	if err := workers.Wait(); err != nil {
		return err
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("line %d of the batch, and what follows it, was not done: it is longer than %d bytes", number+1,
			maxBatchLine)
	} else if err != nil {
		return fmt.Errorf("read line %d of the batch: %w", number+1, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("after line %d of the batch: %w", number, err)
	}
	if b.failed > 0 {
		return fmt.Errorf("%d of %d lines could not be done, their answers say why", b.failed, number)
	}
	return nil
}

// line does one line. It returns an error only if nobody can be answered any more.
func (b *batch) line(ctx context.Context, number int, text []byte) error {
	a, err := b.one(ctx, text)
	var refused *enrol.RefusedError
	switch {
	case errors.As(err, &refused):
		a.Reason, a.Code = refused.Detail, string(refused.Reason)
	case err != nil:
		a.Reason, a.Code = fmt.Sprintf("line %d: %v", number, err), "error"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.Code == "error" {
		b.failed++
	}
	if err := json.NewEncoder(b.out).Encode(report.Whole(a)); err != nil {
		return fmt.Errorf("answer line %d of the batch: %w", number, err)
	}
	return nil
}

func (b *batch) one(ctx context.Context, text []byte) (answer, error) {
	r, err := parseRequest(text)
	a := answer{Pod: r.Pod}
	if err != nil {
		return a, err
	}
	pod, err := b.facts.of(enrol.Pod{Name: r.Pod, Netns: r.Netns})
	if err != nil {
		return a, err
	}
	return b.do(ctx, b.options, pod)
}

// parseRequest reads one JSON object and nothing behind it.
func parseRequest(text []byte) (request, error) {
	var r request
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf(`want {"netns": PATH, "pod": NAME}: %w`, plainJSON(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return r, errors.New("there is something behind the object: one object a line")
	}
	if r.Pod == "" {
		return r, errors.New(`"pod" is missing`)
	}
	return r, nil
}

// plainJSON says what is wrong with a request without the words of Go for it.
func plainJSON(err error) error {
	var mistyped *json.UnmarshalTypeError
	switch {
	case errors.As(err, &mistyped) && mistyped.Field != "":
		return fmt.Errorf("%q is to be a string, not %s", mistyped.Field, withArticle(mistyped.Value))
	case errors.As(err, &mistyped):
		return fmt.Errorf("this is %s", withArticle(mistyped.Value))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the object does not end on its line")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: ")) // the line is in the answer, what is behind it is internal
}

// withArticle makes the kind of a JSON value part of a sentence. Of a number encoding/json gives the text, too.
func withArticle(kind string) string {
	kind, _, _ = strings.Cut(kind, " ")
	switch kind {
	case "bool":
		return "true or false"
	case "array", "object":
		return "an " + kind
	}
	return "a " + kind
}

// podFacts are the facts of pods by "namespace/name"; nil where nobody asked for manifests.
type podFacts map[string]enrol.Facts

// of adds the facts of a pod to it.
func (f podFacts) of(pod enrol.Pod) (enrol.Pod, error) {
	if f == nil {
		return pod, nil
	}
	facts, known := f[pod.Name]
	if !known {
		return pod, fmt.Errorf("pod %s: the manifests have no such pod, so nothing tells whether it can be enrolled",
			pod.Name)
	}
	pod.Facts = facts
	return pod, nil
}

// readFacts reads manifests for what decides whether a pod can be enrolled.
func readFacts(path string) (podFacts, error) {
	if path == "" {
		return nil, nil
	}
	documents, _, err := manifest.ReadPath(path)
	if err != nil {
		return nil, err
	}
	namespaces := make(map[string]*corev1.Namespace)
	for _, d := range documents {
		if n, ok := d.Object.(*corev1.Namespace); ok {
			namespaces[n.Name] = n
		}
	}
	facts := podFacts{}
	for _, d := range documents {
		if pod, ok := d.Object.(*corev1.Pod); ok {
			facts[pod.Namespace+"/"+pod.Name] = enrol.Facts{
				HostNetwork: manifest.HostNetwork(pod), Sidecar: manifest.Sidecar(pod),
				OtherMesh: manifest.OtherMesh(pod, namespaces[pod.Namespace]),
			}
		}
	}
	return facts, nil
}
