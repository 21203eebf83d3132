// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/graph"
)

// complete tells shells the values of flags that have few: for a flag of that name, wherever it is.
func complete(c *cobra.Command) {
	for flag, values := range map[string][]string{
		"output": {"table", "json"}, "format": graph.Formats(), "log-level": {"debug", "info", "warn", "error"},
		"log-format": {"text", "json"}, "on-start": onStart, "batch": {"-"},
	} {
		if c.Flags().Lookup(flag) != nil {
			mustComplete(c, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	if c.HasParent() && c.Parent().Name() == "sim" && c.Flags().Lookup("name") != nil {
		mustComplete(c, "name", completeLabs)
	}
	for _, child := range c.Commands() {
		complete(child)
	}
}

// mustComplete panics where a flag was given two completions.
func mustComplete(c *cobra.Command, flag string, how cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, how); err != nil {
		panic(err)
	}
}

// completeLabs offers the labs of this machine.
func completeLabs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, err := netsim.Names()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeLab offers them as the one argument of a command.
func completeLab(c *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeLabs(c, args, begin)
}

// completePlaces offers the pods and nodes of a lab as the first argument of a command on one.
func completePlaces(lab *labFlag) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		l, err := lab.attach()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		info := l.Info()
		var places []string
		for _, pod := range info.Pods {
			places = append(places, pod.Namespace+"/"+pod.Name)
			if pod.Namespace == metav1.NamespaceDefault {
				places = append(places, pod.Name)
			}
		}
		for _, node := range info.Nodes {
			places = append(places, "node/"+node.Name)
		}
		return places, cobra.ShellCompDirectiveNoFileComp
	}
}
