// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// sourceKinds are the faults of the control plane: the files that agents read.
func sourceKinds() []Kind {
	file := Param{"file", "documents.yaml", "which file of the directory"}
	kind := func(name, summary string, zero func() Fault, build func(subject, values) (Fault, error), params ...Param) Kind {
		return Kind{Name: name, Group: "control-plane", Target: "source", Summary: summary, Params: params, zero: zero,
			build: build}
	}
	source := func() Fault { return new(Source) }
	return []Kind{
		kind("source-gone", "remove a file", source, func(s subject, v values) (Fault, error) {
			path, err := v.file(s, "file")
			return &Source{File: path, Harm: HarmGone}, err
		}, file),
		kind("source-away", "move the whole directory away", func() Fault { return new(Away) },
			func(s subject, _ values) (Fault, error) { return &Away{Dir: s.info.Manifests}, nil }),
		kind("source-truncated", "cut off the end of a file in place", source, func(s subject, v values) (Fault, error) {
			path, err := v.file(s, "file")
			keep := v.random.Float64()
			var keepErr error
			if v.text("keep") != "random" {
				keep, keepErr = v.share("keep")
			}
			return &Source{File: path, Harm: HarmTruncated, Keep: keep}, errors.Join(err, keepErr)
		}, file, Param{"keep", "random", "share of it that stays; random: drawn"}),
		kind("source-poisoned", "add a file that cannot be read", source, func(s subject, v values) (Fault, error) {
			path, err := v.file(s, "file")
			names := slices.Sorted(maps.Keys(poisons))
			name := v.text("poison")
			if name == "random" {
				name = names[v.random.IntN(len(names))]
			}
			make, known := poisons[name]
			if !known {
				return nil, fmt.Errorf("%w poison %q: there are %s", ErrUnknown, name, strings.Join(names, ", "))
			}
			return &Source{File: path, Harm: HarmReplaced, Text: make()}, err
		}, Param{"file", "poison.yaml", "its name; that of a file that is there replaces that"},
			Param{"poison", "malformed", "what it has: " + strings.Join(slices.Sorted(maps.Keys(poisons)), ", ") + ", random"}),
		kind("source-storm", "change services and endpoints again and again", func() Fault { return new(Storm) },
			func(s subject, v values) (Fault, error) {
				services, err := v.number("services")
				endpoints, endpointsErr := v.number("endpoints")
				every, everyErr := v.duration("every")
				return &Storm{File: filepath.Join(s.info.Manifests, "storm.yaml"), Services: services, Endpoints: endpoints,
					Every: every, Seed: v.seed}, errors.Join(err, endpointsErr, everyErr)
			}, Param{"services", "10", "how many, up to 250"}, Param{"endpoints", "50", "of each, up to 250"},
			Param{"every", "20ms", "time from one change to the next"}),
	}
}

// file is a name in the directory that agents read.
func (v values) file(s subject, name string) (string, error) {
	if f := v.text(name); filepath.Base(f) == f && f != "." && f != ".." {
		return filepath.Join(s.info.Manifests, f), nil
	}
	return "", fmt.Errorf("%s=%s: want the name of a file in %s", name, v.text(name), s.info.Manifests)
}
