// SPDX-License-Identifier: Apache-2.0

package expedite

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func files(t *testing.T, expedited, normal string) Switch {
	t.Helper()
	dir := t.TempDir()
	s := Switch{Expedited: filepath.Join(dir, "expedited"), Normal: filepath.Join(dir, "normal"), Dir: filepath.Join(dir, "run")}
	for path, value := range map[string]string{s.Expedited: expedited, s.Normal: normal} {
		if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s Switch) want(t *testing.T, value, when string) {
	t.Helper()
	now, err := os.ReadFile(s.Expedited)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(now)) != value {
		t.Errorf("%s it is %q, want %s", when, now, value)
	}
}

func begin(t *testing.T, s Switch) (end func()) {
	t.Helper()
	e, err := s.begin()
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := e(); err != nil {
			t.Error(err)
		}
	}
}

func TestTheLastUserSwitchesBack(t *testing.T) {
	s := files(t, "0", "0")
	first := begin(t, s)
	second := begin(t, s)
	s.want(t, "1", "with two users")
	first()
	s.want(t, "1", "with one user")
	second()
	s.want(t, "0", "without users")
}

func TestWhatOthersHaveSetStays(t *testing.T) {
	s := files(t, "1", "0")
	end := begin(t, s)
	end()
	s.want(t, "1", "of somebody else")
	s = files(t, "0", "1")
	end = begin(t, s)
	s.want(t, "0", "where grace periods are to be normal")
	end()
}

// TestASwitchThatDoesNotMove leaves no note that would later undo somebody else's setting.
func TestASwitchThatDoesNotMove(t *testing.T) {
	s := files(t, "0", "0")
	fd, err := unix.MemfdCreate("expedited", unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	sealed := os.NewFile(uintptr(fd), "expedited")
	defer sealed.Close()
	if _, err := sealed.WriteString("0"); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(sealed.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
		t.Fatal(err)
	}
	stuck := s
	stuck.Expedited = fmt.Sprintf("/proc/self/fd/%d", fd)
	done := false
	if err := stuck.During(func() error { done = true; return nil }); err != nil || !done {
		t.Errorf("done: %t, %v", done, err)
	}
	if err := os.WriteFile(s.Expedited, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	begin(t, s)()
	s.want(t, "1", "of somebody else, later")
}

func TestAMachineWithoutTheSwitch(t *testing.T) {
	s := files(t, "0", "0")
	if err := os.Remove(s.Expedited); err != nil {
		t.Fatal(err)
	}
	done := false
	if err := s.During(func() error { done = true; return nil }); err != nil || !done {
		t.Errorf("done: %t, %v", done, err)
	}
}

// TestAKilledUser starts itself as a user, kills it, and lets the next one come to its end.
func TestAKilledUser(t *testing.T) {
	if dir := os.Getenv("EXPEDITE_CHILD"); dir != "" {
		s := Switch{Expedited: filepath.Join(dir, "expedited"), Normal: filepath.Join(dir, "normal"), Dir: filepath.Join(dir, "run")}
		if _, err := s.begin(); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("begun\n")
		_, _ = io.ReadAll(os.Stdin)
		return
	}
	s := files(t, "0", "0")
	child := exec.Command(os.Args[0], "-test.run=^TestAKilledUser$")
	child.Env = append(os.Environ(), "EXPEDITE_CHILD="+filepath.Dir(s.Expedited))
	in, _ := child.StdinPipe()
	defer in.Close()
	out, _ := child.StdoutPipe()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "begun\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	end := begin(t, s)
	end()
	s.want(t, "1", "while another process is a user")
	_ = child.Process.Kill()
	_ = child.Wait()
	s.want(t, "1", "after a kill")
	begin(t, s)()
	s.want(t, "0", "after the next user")
}

func TestManyUsers(t *testing.T) {
	s := files(t, "0", "0")
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 50 {
				end, err := s.begin()
				if err != nil {
					t.Error(err)
					return
				}
				s.want(t, "1", "with a user")
				if err := end(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s.want(t, "0", "without users")
}
