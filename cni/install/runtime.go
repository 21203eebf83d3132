// SPDX-License-Identifier: Apache-2.0

package install

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/version"
)

// runtimes are the names of processes that call CNI plugins.
var runtimes = map[string]bool{"containerd": true, "crio": true, "k3s-server": true, "k3s-agent": true, "k0s": true}

const library = "github.com/containernetworking/cni"

// readsDropIns reports whether a runtime that runs on this node reads the drop-in directory, and which that is. The
// binary of a Go program says which libcni it was built with: 1.3 was the first to do so. Of one that does not say, or
// where none runs, or several, it is not known, so the answer is no.
func readsDropIns() (yes bool, runtime string) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return false, ""
	}
	found := make(map[string]bool)
	for _, path := range names {
		text, err := os.ReadFile(path)
		name := strings.TrimSpace(string(text))
		if err != nil || !runtimes[name] {
			continue
		}
		info, err := buildinfo.ReadFile(filepath.Join(filepath.Dir(path), "exe"))
		if err != nil {
			continue
		}
		about := name + " without a libcni that it names"
		for _, dependency := range info.Deps {
			if dependency.Path == library {
				about = fmt.Sprintf("%s with libcni %s", name, dependency.Version)
				able, err := version.GreaterThanOrEqualTo(strings.TrimPrefix(dependency.Version, "v"), "1.3.0")
				yes = err == nil && able
			}
		}
		found[about] = true
		runtime = about
	}
	return yes && len(found) == 1, runtime
}
