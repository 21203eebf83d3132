// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// What this binary is to be; see TestMain.
const (
	roleVariable = "EVENKEEL_TEST_ROLE"
	roleCommand  = "command" // the command itself
	roleClient   = "client"  // a process in a pod
	roleNode     = "node"    // the tests, in the namespaces of a node of their own
)

// TestMain lets this binary be several things. As root the tests run once more, in network and mount namespaces of
// their own: what they make there ends with them.
func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); {
	case role == roleCommand:
		os.Exit(command.Main(newRootCommand))
	case role == roleClient:
		os.Exit(client(os.Args[1:]))
	case role == "" && os.Geteuid() == 0:
		os.Exit(again())
	}
	os.Exit(m.Run())
}

func again() int {
	tests := exec.Command("/proc/self/exe", os.Args[1:]...)
	tests.Env = append(os.Environ(), roleVariable+"="+roleNode)
	tests.Stdin, tests.Stdout, tests.Stderr = os.Stdin, os.Stdout, os.Stderr
	tests.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	err := tests.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
		return 1
	}
	return 0
}

// result is how a command line ended.
type result struct {
	code           int
	stdout, stderr string
}

// evenkeel runs a command line in this process.
func evenkeel(t testing.TB, args ...string) result { return evenkeelWith(t, "", args...) }

func evenkeelWith(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	e := command.Env{Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr,
		Getenv: func(string) string { return "" }}
	code := command.Run(context.WithoutCancel(t.Context()), newRootCommand, e, args) // which ends before what cleans up
	return result{code, stdout.String(), stderr.String()}
}

// A path that a script has left empty means neither the working directory nor the default: the flag is named, with what it
// takes. It is said before anything is done.
func TestEmptyPathsAreRefused(t *testing.T) {
	paths := []string{"pin-dir", "admin", "cgroup", "state-dir", "run-dir", "manifests", "netns", "to", "write", "dir", "from"}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{c.LocalFlags(), c.InheritedFlags()} {
			flags.VisitAll(func(f *pflag.Flag) {
				if f.Value.Type() != "path" && !slices.Contains(paths, f.Name) {
					return
				}
				line := append(strings.Fields(c.CommandPath())[1:], "--"+f.Name, "")
				got := evenkeel(t, line...)
				if got.code != 2 || !strings.Contains(got.stderr, "--"+f.Name+" is empty: it takes a path (") ||
					!strings.Contains(got.stderr, f.DefValue) {
					t.Errorf("%q: %+v", line, got)
				}
			})
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk(newRootCommand(command.Env{Getenv: func(string) string { return "" }}))
}

func TestUsageErrorsExitWith2(t *testing.T) {
	tests := []struct{ line, want string }{
		{"statsu", "did you mean status?"},
		{"status --no-such-flag", "--no-such-flag"},
		{"status extra", "extra"},
		{"status -o yaml", "table and json"},
		{"dump", "dump what?"},
		{"dump pods", "pods"},
		{"dump flows -o xml", "table and json"},
		{"explain default/client", "SERVICE:PORT"},
		{"explain client web:80", "NAMESPACE/POD"},
		{"explain default/client web", "port"},
		{"explain default/client web:0", "65535"},
		{"explain default/client web:80/sctp", "sctp"},
		{"explain default/client :80", "which service"},
		{"agent", "--node and --source"},
		{"agent --node n --source x --log-level loud", "loud"},
		{"agent --node n --source=", "--source is empty"},
		{"agent --node n --source x --source ./x/", "--source x is given twice"},
		{"agent --node n --source x --log-format xml", "xml"},
		{"agent --node n --source x --max-services 0", "--max-services"},
		{"agent --node n --source x --max-peers 4000000000", "--max-peers"},
		{"agent --node n --source x --max-peers -1", `--max-peers "-1": it is a whole number from 0 to`},
		{"agent --node n --source x --max-peers=many", `--max-peers "many": it is a whole number`},
		{"agent --node n --source x --take-over=maybe", `--take-over "maybe": it is true or false`},
		{"agent --node N_1 --source x", `--node "N_1"`},
		{"agent --node " + strings.Repeat("n", 254) + " --source x", "253"},
		{"agent --node n --source x --metrics foo", "127.0.0.1:15090"},
		{"enrol", "--pod"},
		{"enrol --pod a/b", "--netns"},
		{"enrol --pod web --netns /x", "NS/NAME"},
		{"enrol --batch pods.ndjson", "standard input"},
		{"enrol --batch - --pod a/b", "leave --netns and --pod out"},
		{"withdraw", "--pod"},
		{"withdraw --canary --pod a/b", "--canary"},
		{"uninstall now", "now"},
		{"upgrade", "upgrade what? apply, history, plan, retire, rollback, status or verify"},
		{"sim", "sim what? apply, call, down, exec"},
		{"sim upp", "did you mean up?"},
		{"completion", "completion what? bash"},
		{"completion tcsh", "tcsh"},
		{"completion bash extra", "extra"},
		{"explain one", "2 arguments are needed, not 1"},
		{"sim up", "1 argument is needed, not 0"},
		{"sim graph --format png", "mermaid, dot or html"},
		{"upgrade exercise --flips 0", "--flips"},
		{"version -o toml", "table and json"},
		{"doctor -o toml", "table and json"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			got := evenkeel(t, strings.Fields(test.line)...)
			if got.code != 2 || !strings.Contains(got.stderr, test.want) || !strings.Contains(got.stderr, "--help") {
				t.Errorf("exit %d, want 2 and %q: %s", got.code, test.want, got.stderr)
			}
			if got.stdout != "" {
				t.Errorf("it printed %q", got.stdout)
			}
		})
	}
}

func TestWithoutADataPlane(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	socket := filepath.Join(t.TempDir(), "admin.sock")
	for _, line := range []string{"status", "dump services", "dump endpoints", "dump workloads", "dump flows",
		"explain a/b 10.0.0.1:80", "upgrade exercise", "enrol --pod a/b --netns /x", "withdraw --pod a/b"} {
		t.Run(line, func(t *testing.T) {
			args := append(strings.Fields(line), "--pin-dir", missing)
			if name := args[0]; name == "status" || name == "dump" || name == "explain" {
				args = append(args, "--admin", socket)
			}
			got := evenkeel(t, args...)
			if got.code != 1 || !strings.Contains(got.stderr, missing) || got.stdout != "" {
				t.Errorf("exit %d, stdout %q, stderr %q: want 1 and the name of the directory", got.code, got.stdout, got.stderr)
			}
		})
	}
	t.Run("uninstall", func(t *testing.T) {
		if got := evenkeel(t, "uninstall", "--pin-dir", missing); got.code != 0 {
			t.Errorf("there is nothing to remove, and that is no failure: %+v", got)
		}
	})
	t.Run("agent", func(t *testing.T) {
		got := evenkeel(t, "agent", "--node", "n", "--source", "x", "--cgroup", "/", "--pin-dir", missing)
		if got.code != 1 || !strings.Contains(got.stderr, "such as /sys/fs/bpf") {
			t.Errorf("exit %d: %s", got.code, got.stderr)
		}
	})
}

// TestDoctorWithoutRoot: one sentence, and not a list of what fails for that one reason.
func TestDoctorWithoutRoot(t *testing.T) {
	command := exec.Command("/proc/self/exe", "doctor")
	command.Env = append(os.Environ(), roleVariable+"="+roleCommand)
	if os.Geteuid() == 0 {
		const nobody = 65534
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := command.CombinedOutput()
	if command.ProcessState.ExitCode() != 1 || string(out) != "evenkeel: not root: run with sudo\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestHelpIsWorthReading holds every command to the same form.
func TestHelpIsWorthReading(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		for _, child := range c.Commands() {
			walk(child)
		}
		if !c.HasParent() {
			return
		}
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Short == "" || strings.HasSuffix(c.Short, ".") {
				t.Errorf("short help %q", c.Short)
			}
			if !strings.Contains(c.Example, "evenkeel ") {
				t.Errorf("no example")
			}
			for line := range strings.Lines(c.Long) {
				if len([]rune(line)) > 121 {
					t.Errorf("a line of %d letters: %s", len([]rune(line)), line)
				}
			}
		})
	}
	walk(newRootCommand(command.Env{}))
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := evenkeel(t, "completion", shell); got.code != 0 || len(got.stdout) < 1000 {
			t.Errorf("%s: exit %d, %d bytes", shell, got.code, len(got.stdout))
		}
	}
}

// TestPageLength: who begins reads two files, and reads them whole.
func TestPageLength(t *testing.T) {
	const most = 80
	for _, name := range []string{"Makefile", "README.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n > most {
			t.Errorf("%s has %d lines, and at most %d are read", name, n, most)
		}
	}
}

// TestFlagsComplete asks as a shell does.
func TestFlagsComplete(t *testing.T) {
	for line, want := range map[string]string{
		"status -o|": "table\njson\n", "dump flows --output|": "json", "sim graph --format|": "mermaid\ndot\nhtml\n",
		"agent --log-level|": "debug\ninfo\nwarn\nerror\n", "agent --log-format|": "text\njson\n", "sim down --name|": ":4",
		"sim inspect --name|": ":4", "sim inspect|": ":4",
	} {
		words := append([]string{"__complete"}, strings.Fields(strings.TrimSuffix(line, "|"))...)
		if got := evenkeel(t, append(words, "")...); got.code != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("%s: %+v, want %q", line, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	if got := evenkeel(t, "--version"); got.code != 0 || !strings.HasPrefix(got.stdout, "evenkeel version ") {
		t.Errorf("--version: %+v", got)
	}
	got := evenkeel(t, "version")
	if got.code != 0 || !strings.Contains(got.stdout, "sha256:") {
		t.Errorf("%+v", got)
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("not as in %s (go test -update writes it anew):\n%s", path, got)
	}
}
