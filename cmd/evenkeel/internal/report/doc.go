// SPDX-License-Identifier: Apache-2.0

// Package report is what the commands show of a data plane, as documents with a version: what their fields mean is a
// promise (docs/CLI.md), and how they are gathered is in here. The agent makes them of what it has in memory, the
// commands of what is pinned when there is no agent. The package changes nothing and prints nothing.
package report

// Version is that of every document. Fields may be added to a version, but none is removed or given another meaning.
const Version = "v1"
