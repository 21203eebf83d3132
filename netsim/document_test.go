// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestTopologyIsDocumented fails when a field of the file is in no line of its documentation.
func TestTopologyIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/TOPOLOGY.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []any{NodeSpec{}, WireSpec{}, PodSpec{}, PortSpec{}, AgentSpec{}} {
		for i := range reflect.TypeOf(of).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(of).Field(i).Tag.Get("json"), ",")
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("%T: `%s` is not in docs/TOPOLOGY.md", of, name)
			}
		}
	}
	example, _, _ := strings.Cut(strings.SplitN(string(text), "```yaml\n", 2)[1], "```")
	if _, err := Parse(strings.NewReader(example), "example"); err != nil {
		t.Errorf("the example of docs/TOPOLOGY.md: %v", err)
	}
}
