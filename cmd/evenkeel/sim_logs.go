// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
)

func newSimLogsCommand(e command.Env) *cobra.Command {
	var lab labFlag
	var follow bool
	c := &cobra.Command{
		Use:   "logs [POD|node/NODE]",
		Short: "Show what pods and agents have written",
		Long: `Show what the processes of a pod, or the agent of a node, have written. Without a name it is everything
of the lab, each line with the name of who wrote it.`,
		Example: "  evenkeel sim logs node/a\n  evenkeel sim logs web-0 -f\n  evenkeel sim logs",
		Args:    atMostOne,
		RunE: func(c *cobra.Command, args []string) error {
			l, err := lab.attach()
			if err != nil {
				return err
			}
			logs, err := logsOf(l, strings.Join(args, ""))
			if err != nil {
				return err
			}
			if err := showLogs(c.Context(), e.Stdout, logs, follow); err != nil {
				return err
			}
			if !slices.ContainsFunc(logs, func(l *logFile) bool { return l.offset > 0 }) {
				fmt.Fprintln(e.Stderr, "nothing was written")
			}
			return nil
		},
	}
	lab.flag(c)
	c.ValidArgsFunction = completePlaces(&lab)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on, until Ctrl-C")
	return c
}

// logFile is one file, read as far as offset.
type logFile struct {
	path, prefix string
	offset       int64
	rest         []byte // a line that has no end yet
}

func logsOf(lab *netsim.Lab, name string) ([]*logFile, error) {
	info := lab.Info()
	var logs []*logFile
	add := func(prefix string, paths ...string) {
		for _, path := range paths {
			logs = append(logs, &logFile{path: path, prefix: prefix})
		}
	}
	if name != "" {
		pod, node, err := findPlace(lab, name)
		if err != nil {
			return nil, err
		}
		for _, p := range info.Pods {
			if pod != nil && p.Name == pod.Name && p.Namespace == pod.Namespace {
				add("", podLogs(p)...)
			}
		}
		for _, n := range info.Nodes {
			if node != nil && n.Name == node.Name {
				if n.Agent.State == netsim.AgentNone {
					return nil, fmt.Errorf("node %s never had an agent: the topology says agent: {enabled: true} for that", n.Name)
				}
				add("", n.Agent.Log)
			}
		}
		return logs, nil
	}
	for _, n := range info.Nodes {
		if n.Agent.State != netsim.AgentNone {
			add("node/"+n.Name+" | ", n.Agent.Log)
		}
	}
	for _, p := range info.Pods {
		add(p.Namespace+"/"+p.Name+" | ", podLogs(p)...)
	}
	return logs, nil
}

func podLogs(p netsim.PodInfo) []string {
	return []string{filepath.Join(p.Logs, "stdout.log"), filepath.Join(p.Logs, "stderr.log")}
}

func showLogs(ctx context.Context, out io.Writer, logs []*logFile, follow bool) error {
	w := bufio.NewWriter(out)
	// Files are asked again and again: they come and go with pods, and one look at a size costs little.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, log := range logs {
			if err := log.copyTo(w, !follow); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write logs: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// copyTo writes what the file has since the last call; last writes a line without an end, too. A file that is not there
// has nothing.
func (l *logFile) copyTo(w io.Writer, last bool) error {
	file, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer file.Close()
	const most = 1 << 20 // bytes at a time
	buffer := make([]byte, most)
	for {
		n, err := file.ReadAt(buffer, l.offset)
		l.offset += int64(n)
		l.rest = append(l.rest, buffer[:n]...)
		for {
			line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
			if !whole {
				break
			}
			fmt.Fprintf(w, "%s%s\n", l.prefix, line) // the caller's flush tells of errors
			l.rest = rest
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
	if last && len(l.rest) > 0 {
		fmt.Fprintf(w, "%s%s\n", l.prefix, l.rest)
	}
	return nil
}
