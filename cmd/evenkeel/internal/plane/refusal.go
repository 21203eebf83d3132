// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Refusal says in the words of the command what a refused start hangs on, and what to do: a flag that sizes maps comes
// first, once, however many maps it sizes.
func Refusal(refused *upgrade.RefusedError) error {
	var flags, back []string
	var rest []upgrade.Change
	seen := make(map[string]bool)
	for _, c := range refused.Changes {
		name := path.Base(c.Name)
		flag := bpf.Flag(name)
		if flag == "" || c.Entries == [2]uint32{} {
			rest = append(rest, c)
			continue
		}
		if seen[flag] {
			continue
		}
		seen[flag] = true
		is, was := bpf.FlagValue(name, c.Entries[0]), bpf.FlagValue(name, c.Entries[1])
		flags = append(flags, fmt.Sprintf("%s was %d, is %d", flag, was, is))
		back = append(back, fmt.Sprintf("%s %d", flag, was))
	}
	const anew = "make the data plane anew with 'evenkeel uninstall', which ends the mesh on this node for a moment"
	if len(rest) == 0 {
		return fmt.Errorf("%s: maps cannot change their size, and those that are pinned serve on untouched: start the agent "+
			"with %s, or %s", strings.Join(flags, ", "), strings.Join(back, " "), anew)
	}
	flags = append(flags, upgrade.Describe(rest))
	return errors.New(strings.Join(flags, "; ") + ": the pinned state, which serves on untouched, is not what this agent " +
		"expects: start it with the release and flags that the state was made with, or " + anew)
}
