// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Refusal says in the words of the command what a refused start hangs on, and what to do: a flag that sizes maps comes
// first, once, however many maps it sizes. upgradable tells that an upgrade was not tried.
func Refusal(refused *upgrade.RefusedError, upgradable bool) error {
	var flags, back, forth []string
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
		forth = append(forth, fmt.Sprintf("%s %d", flag, is))
	}
	way := "make the data plane anew with 'evenkeel uninstall', which ends the mesh on this node for a moment"
	if upgradable && !slices.ContainsFunc(rest, func(c upgrade.Change) bool { return path.Dir(c.Name) != "gen" }) {
		way = fmt.Sprintf("let an upgrade do it under traffic, 'evenkeel agent --on-start upgrade' or '%s'",
			strings.Join(append([]string{"evenkeel upgrade apply"}, forth...), " "))
	}
	if len(rest) == 0 {
		return fmt.Errorf("%s: what is pinned has other sizes, and serves on untouched: start the agent with %s, or %s",
			strings.Join(flags, ", "), strings.Join(back, " "), way)
	}
	flags = append(flags, upgrade.Describe(rest))
	return errors.New(strings.Join(flags, "; ") + ": the pinned state, which serves on untouched, is not what this agent " +
		"expects: start it with the release and flags that the state was made with, or " + way)
}
