// SPDX-License-Identifier: Apache-2.0

// Package manifest reads Kubernetes documents: Namespaces, Nodes, Pods, Services and EndpointSlices out of YAML and
// JSON, as the typed objects of k8s.io/api, each with the file and line that it came from. It owns what makes such a
// document acceptable to a data plane (strict fields, names, addresses, ports) and the facts of a pod that decide
// whether it can be enrolled.
//
// The sources of the engine and the testbed call it. It never watches, translates or keeps anything: a call reads,
// checks and returns, and what it refuses it refuses with file, line, field and reason.
//
// A document is read in three steps: text to a tree of nodes (block.go and flow.go for the style that nearly every
// document is written in, yaml.go for all other YAML, json.go for JSON), tree to typed object (typed.go), object to
// checked object (check.go, checkservice.go). The tree is why an error can name the line of the very field.
package manifest
