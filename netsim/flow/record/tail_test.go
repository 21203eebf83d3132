// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.ndjson")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tail, err := OpenTail(path)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	for i, step := range []struct {
		writes string
		lines  int
	}{
		{"", 0},
		{`{"window":{"flow":1,"from":1,"to":2,"sent":3,"received":3,"worst":0}}` + "\n" + `{"win`, 1},
		{`dow":{"flow":1,"from":2,"to":3,"sent":3,"received":3,"worst":0}}`, 0},
		{"\n", 1},
		{"", 0},
	} {
		if _, err := file.WriteString(step.writes); err != nil {
			t.Fatal(err)
		}
		lines := 0
		err := tail.Next(func(line any) error {
			if w, is := line.(*Window); !is || w.Received != 3 {
				t.Errorf("step %d: %+v", i, line)
			}
			lines++
			return nil
		})
		if err != nil || lines != step.lines {
			t.Errorf("step %d: %d lines, %v", i, lines, err)
		}
	}
	if _, err := file.WriteString("nonsense\n"); err != nil {
		t.Fatal(err)
	}
	if err := tail.Next(func(any) error { return nil }); err == nil {
		t.Error("nonsense is read")
	}
}
