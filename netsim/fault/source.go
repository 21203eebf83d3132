// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Harm is what is done to a file.
type Harm string

// The harms: the file is removed, its end is cut off in place (as by a writer that died or a full disk), or other text is
// in its place.
const (
	HarmGone      Harm = "gone"
	HarmTruncated Harm = "truncated"
	HarmReplaced  Harm = "replaced"
)

// Source does harm to a file that agents read as their control plane. A file that does not exist may be replaced; it is
// then one too many.
type Source struct {
	File string `json:"file"`
	Harm Harm   `json:"harm"`
	// Keep is how much of a truncated file stays, from 0 to 1.
	Keep float64 `json:"keep,omitempty"`
	// Text replaces that of the file.
	Text []byte `json:"text,omitempty"`
	// Before is what the file had, nil if it was not there; Prepare reads it.
	Before []byte      `json:"before"`
	Mode   fs.FileMode `json:"mode"`
}

func (s *Source) String() string { return fmt.Sprintf("source file %s %s", s.File, s.Harm) }

// Prepare keeps what is in the file.
func (s *Source) Prepare(context.Context) error {
	info, err := os.Stat(s.File)
	if errors.Is(err, fs.ErrNotExist) && s.Harm == HarmReplaced {
		s.Mode = 0o644
		return nil
	}
	if err != nil {
		return fmt.Errorf("find file: %w", err)
	}
	s.Mode = info.Mode().Perm()
	if s.Before, err = os.ReadFile(s.File); err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	if s.Before == nil {
		s.Before = []byte{} // it is there
	}
	if s.Harm == HarmReplaced && bytes.Equal(s.Text, s.Before) {
		return fmt.Errorf("%s has that text already", s.File)
	}
	if s.Harm == HarmTruncated && s.kept() == len(s.Before) {
		return fmt.Errorf("%s has %d bytes: nothing of it would be cut off", s.File, len(s.Before))
	}
	return nil
}

func (s *Source) kept() int { return int(s.Keep * float64(len(s.Before))) }

// Inject does the harm.
func (s *Source) Inject(context.Context) error {
	var err error
	switch s.Harm {
	case HarmGone:
		err = os.Remove(s.File)
	case HarmTruncated:
		err = os.Truncate(s.File, int64(s.kept()))
	case HarmReplaced:
		err = replaceFile(s.File, s.Text, s.Mode)
	default:
		err = fmt.Errorf("%w harm %q", ErrUnknown, s.Harm)
	}
	if err != nil {
		return fmt.Errorf("harm file: %w", err)
	}
	return nil
}

// harmed tells whether the file is as Inject has left it. Somebody may have written another one since.
func (s *Source) harmed() (bool, error) {
	text, err := os.ReadFile(s.File)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return false, fmt.Errorf("read file: %w", err)
	}
	switch s.Harm {
	case HarmGone:
		return gone, nil
	case HarmTruncated:
		return !gone && bytes.Equal(text, s.Before[:s.kept()]), nil
	}
	return !gone && bytes.Equal(text, s.Text), nil
}

// Heal puts the old file back, unless another one is there by now.
func (s *Source) Heal(context.Context) error {
	harmed, err := s.harmed()
	if err != nil || !harmed {
		return err
	}
	if s.Before == nil {
		err = os.Remove(s.File)
	} else {
		err = replaceFile(s.File, s.Before, s.Mode)
	}
	if err != nil {
		return fmt.Errorf("restore file: %w", err)
	}
	return nil
}

// Active counts the bytes that are missing, or there and should not be.
func (s *Source) Active(context.Context) (uint64, error) {
	harmed, err := s.harmed()
	if err != nil || !harmed {
		return 0, err
	}
	switch s.Harm {
	case HarmGone:
		return uint64(max(1, len(s.Before))), nil
	case HarmTruncated:
		return uint64(len(s.Before) - s.kept()), nil
	}
	return uint64(max(1, len(s.Text))), nil
}

// replaceFile publishes text in one step.
func replaceFile(path string, text []byte, mode fs.FileMode) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".fault")
	err := os.WriteFile(temporary, text, mode)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	return err
}

// Away moves a directory away, with all that is in it.
type Away struct {
	Dir string `json:"dir"`
}

func (a *Away) String() string { return "directory " + a.Dir + " is away" }

func (a *Away) hidden() string { return a.Dir + ".away" }

// Prepare makes sure that the directory is there and can be moved.
func (a *Away) Prepare(context.Context) error {
	if _, err := os.Stat(a.Dir); err != nil {
		return fmt.Errorf("find directory: %w", err)
	}
	if _, err := os.Stat(a.hidden()); err == nil {
		return fmt.Errorf("%s is in the way", a.hidden())
	}
	return nil
}

// Inject moves it.
func (a *Away) Inject(context.Context) error {
	if err := os.Rename(a.Dir, a.hidden()); err != nil {
		return fmt.Errorf("move directory away: %w", err)
	}
	return nil
}

// Heal moves it back.
func (a *Away) Heal(context.Context) error {
	if err := os.Rename(a.hidden(), a.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move directory back: %w", err)
	}
	return nil
}

// Active counts the directory and what cannot be found in it any more.
func (a *Away) Active(context.Context) (uint64, error) {
	if _, err := os.Stat(a.Dir); err == nil {
		return 0, nil
	}
	entries, err := os.ReadDir(a.hidden())
	if err != nil {
		return 0, fmt.Errorf("look into directory: %w", err)
	}
	return 1 + uint64(len(entries)), nil
}

// poisons are texts that no control plane should be given, by name.
var poisons = map[string]func() []byte{
	"malformed": func() []byte { return []byte("apiVersion: v1\nkind: Service\nmetadata: {name: poison\n  spec: [\n") },
	"binary":    func() []byte { return bytes.Repeat([]byte{0, 0xff, 0xfe, '\n', ':'}, 1000) },
	"wrong-type": func() []byte {
		return []byte("apiVersion: v1\nkind: Service\nmetadata: {name: poison, namespace: default}\n" +
			"spec: {clusterIP: 10.222.0.1, ports: [{port: eighty}]}\n")
	},
	"wrong-address": func() []byte {
		return []byte("apiVersion: v1\nkind: Service\nmetadata: {name: poison, namespace: default}\n" +
			"spec: {clusterIP: 10.222.0.256, ports: [{port: 80}]}\n")
	},
	"twice": func() []byte {
		one := "apiVersion: v1\nkind: Service\nmetadata: {name: poison, namespace: default}\n" +
			"spec: {clusterIP: 10.222.0.1, ports: [{port: 80}]}\n"
		return []byte(one + "---\n" + one)
	},
	"deep": func() []byte { return []byte("a: " + strings.Repeat("[", 100000) + strings.Repeat("]", 100000)) },
	"circular": func() []byte { // each level is ten times the one before
		text := "l0: &l0 [x]\n"
		for n := 1; n < 10; n++ {
			alias := fmt.Sprintf("*l%d, ", n-1)
			text += fmt.Sprintf("l%d: &l%d [%s]\n", n, n, strings.TrimSuffix(strings.Repeat(alias, 10), ", "))
		}
		return []byte(text)
	},
	"huge": func() []byte { return []byte("a: " + strings.Repeat("x", 32<<20) + "\n") },
}
