// SPDX-License-Identifier: Apache-2.0

// Package ambient is a data plane in a process, for comparison: a layer 4 proxy per node that holds the connections of
// pods as Istio's ztunnel does, and what it and a real ztunnel need around them. It opens its listeners in the
// namespaces of the pods, to which rules there redirect TCP; between pods a connection is an HTTP/2 CONNECT stream in
// mutual TLS with SPIFFE identities. It breaks where ztunnel breaks, and is not tuned.
//
//	Mesh, Config     what a proxy knows, made from manifests
//	Authority        the certificates of a lab
//	Redirect         the rules in a pod's namespace
//	Run              the proxy
//	ServeZDS, …      what a real ztunnel asks a node for
//
// See docs/design/ambient.md.
package ambient
