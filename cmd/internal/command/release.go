// SPDX-License-Identifier: Apache-2.0

package command

import "runtime/debug"

// Release is what a binary calls itself: linked, which the linker has set, or as much as the build knows.
func Release(linked string) string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
