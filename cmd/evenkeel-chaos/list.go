// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/onsi/ginkgo/v2/types"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// listSpecs prints what a dry run has found.
func listSpecs(e command.Env, form command.Output, found types.Report) error {
	type line struct {
		Spec   string   `json:"spec"`
		Labels []string `json:"labels"`
	}
	lines := []line{}
	for _, s := range found.SpecReports {
		if s.LeafNodeType == types.NodeTypeIt && !s.State.Is(types.SpecStateSkipped) {
			lines = append(lines, line{s.FullText(), s.Labels()})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.Spec, b.Spec) })
	if form == "json" {
		return command.JSON(e.Stdout, lines)
	}
	for _, l := range lines {
		fmt.Fprintf(e.Stdout, "%s  [%s]\n", l.Spec, strings.Join(l.Labels, " "))
	}
	return nil
}
