// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sync/errgroup"
)

// enrolment is one pod in the batch that `evenkeel enrol` and `evenkeel withdraw` read and answer, a JSON object a
// line.
type enrolment struct {
	Netns    string `json:"netns,omitempty"`
	Pod      string `json:"pod"`
	Enrolled bool   `json:"enrolled,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Code     string `json:"code,omitempty"`
}

// codeError is the code of an answer that something went wrong.
const codeError = "error"

// maxReasons is how many pods an error tells of: mostly all lack the same.
const maxReasons = 3

// enrolPods enrols those of pods that should be, one process per node. A pod that is refused by a rule (hostNetwork, a
// sidecar, another mesh) is noted as such and is no error.
func (l *Lab) enrolPods(ctx context.Context, pods []*podState, done func()) error {
	if l.state.Dataplane.redirects() {
		return l.redirectPods(ctx, pods, done)
	}
	byNode := map[string][]*podState{}
	for _, pod := range pods {
		if unenrolled(pod) {
			byNode[pod.Spec.Node] = append(byNode[pod.Spec.Node], pod)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for node, pods := range byNode {
		group.Go(func() error {
			answers, err := l.batch(ctx, node, "enrol", pods, "--manifests", l.paths.manifests(),
				fmt.Sprintf("--source-check=%t", !l.state.Agent.Unchecked))
			for _, pod := range pods {
				a, answered := answers[pod.Spec.key()]
				if err == nil && !answered {
					err = fmt.Errorf("evenkeel enrol on node %s does not say whether it enrolled pod %s", node, pod.Spec.key())
				}
				pod.Enrolled, pod.Refusal = a.Enrolled, a.Reason
				if a.Enrolled {
					pod.Refusal = ""
				}
				done()
			}
			return err
		})
	}
	return group.Wait()
}

// enrolled tells whether a pod is enrolled as far as a lab can know: an `evenkeel uninstall` does not tell the lab, but
// leaves its node without pins.
func (l *Lab) enrolled(pod *podState) bool {
	if !pod.Enrolled || l.state.Dataplane != Evenkeel {
		return pod.Enrolled
	}
	_, err := os.Lstat(l.paths.nodePins(pod.Spec.Node))
	return !errors.Is(err, fs.ErrNotExist)
}

// forgetUninstalled notes which pods an uninstall has taken out, so that they are enrolled again.
func (l *Lab) forgetUninstalled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pod := range l.state.Pods {
		pod.Enrolled = l.enrolled(pod)
	}
}

// withdrawPods takes those of pods that are enrolled out.
func (l *Lab) withdrawPods(ctx context.Context, node string, pods []*podState) error {
	var enrolled []*podState
	for _, pod := range pods {
		if pod.Spec.Node == node && pod.Enrolled {
			enrolled = append(enrolled, pod)
		}
	}
	if len(enrolled) == 0 {
		return nil
	}
	if l.state.Dataplane.redirects() {
		return l.releasePods(enrolled)
	}
	_, err := l.batch(ctx, node, "withdraw", enrolled)
	if err != nil {
		return err
	}
	for _, pod := range enrolled {
		pod.Enrolled = false
	}
	return nil
}

// batch runs `evenkeel COMMAND --batch -` for pods of a node and returns its answers by pod. It fails if the command
// does, with what that says of pods and in all.
func (l *Lab) batch(ctx context.Context, node, command string, pods []*podState, flags ...string) (
	map[string]enrolment, error) {
	var in, out, problems bytes.Buffer
	encoder := json.NewEncoder(&in)
	for _, pod := range pods {
		if err := encoder.Encode(enrolment{Netns: l.paths.podNetns(pod), Pod: pod.Spec.key()}); err != nil {
			return nil, fmt.Errorf("encode %s of pod %s: %w", command, pod.Spec.key(), err)
		}
	}
	args := append([]string{command, "--pin-dir", l.paths.nodePins(node), "--batch", "-"}, flags...)
	cmd := exec.Command(l.options.Binary, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &problems
	child, err := startIn(l.paths.nodeNetns(node), cmd, l.paths.hostCgroup(node))
	if err != nil {
		return nil, fmt.Errorf("%s pods of node %s: %w", command, node, err)
	}
	failure := child.waitExit(ctx)
	if ctx.Err() != nil {
		child.kill()
		return nil, fmt.Errorf("%s pods of node %s: %w", command, node, ctx.Err())
	}
	answers := map[string]enrolment{}
	var reasons []string
	for decoder := json.NewDecoder(&out); decoder.More(); {
		var a enrolment
		if err := decoder.Decode(&a); err != nil {
			return nil, fmt.Errorf("read answer of evenkeel %s on node %s: %w", command, node, err)
		}
		answers[a.Pod] = a
		if a.Code == codeError && len(reasons) < maxReasons {
			reasons = append(reasons, a.Reason)
		}
	}
	if failure != nil {
		reasons = append(reasons, strings.TrimSpace(problems.String()))
		return answers, fmt.Errorf("%s pods of node %s: %w: %s", command, node, failure, strings.Join(reasons, "; "))
	}
	return answers, nil
}
