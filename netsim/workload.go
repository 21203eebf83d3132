// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

// startServers starts the built-in servers of pods and returns when all listen.
func (l *Lab) startServers(ctx context.Context, pods []*podState, done func()) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * workers) // each waits for its process most of the time
	for _, pod := range pods {
		if len(pod.Spec.Serve) == 0 {
			continue
		}
		group.Go(func() error {
			if err := l.startServer(ctx, pod); err != nil {
				return fmt.Errorf("start servers of pod %s: %w", pod.Spec.key(), err)
			}
			done()
			return nil
		})
	}
	return group.Wait()
}

func (l *Lab) startServer(ctx context.Context, pod *podState) error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer read.Close()
	args := append([]string{"sim", "serve", "--pod", pod.Spec.Name, "--"}, pod.Spec.Serve...)
	cmd := exec.Command(l.options.Binary, args...)
	cmd.ExtraFiles = []*os.File{write} // readyFD in the child
	child, err := l.startInPod(pod, cmd)
	if err := errors.Join(err, write.Close()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = read.SetReadDeadline(time.Now()) }) // cannot fail on a pipe
	defer stop()
	text, err := io.ReadAll(read)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("wait until they listen: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("wait until they listen: %w", err)
	case string(text) != serverReady:
		child.kill()
		return fmt.Errorf("%w%s", child.ended(), lastWords(filepath.Join(l.paths.podDir(pod), "stderr.log"), 0))
	}
	return nil
}

// startCommands starts the commands of pods. They are on their own from then on.
func (l *Lab) startCommands(pods []*podState) error {
	for _, pod := range pods {
		if len(pod.Spec.Command) == 0 {
			continue
		}
		if _, err := l.startInPod(pod, exec.Command(pod.Spec.Command[0], pod.Spec.Command[1:]...)); err != nil {
			return fmt.Errorf("start command of pod %s: %w", pod.Spec.key(), err)
		}
	}
	return nil
}

// startInPod starts a process of a pod; its output goes to the pod's logs.
func (l *Lab) startInPod(pod *podState, cmd *exec.Cmd) (*child, error) {
	dir := l.paths.podDir(pod)
	if err := makeDirectory(dir, 0o755); err != nil {
		return nil, err
	}
	var files [2]*os.File
	for i, name := range []string{"stdout.log", "stderr.log"} {
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		defer file.Close()
		files[i] = file
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	child, err := startIn(l.paths.podNetns(pod), cmd, l.paths.podCgroup(pod))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	pod.Processes = append(pod.Processes, podProcess{child.Process, cmd.Args})
	l.others = append(l.others, child)
	return child, nil
}
