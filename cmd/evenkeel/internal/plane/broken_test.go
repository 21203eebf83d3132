// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/upgrade"
)

// names are all that is pinned below a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(path, dir))
		return err
	}))
	return all
}

// Releases that are broken are refused by name before anything that serves is touched; the last of them only traffic can
// tell, and a canary does. One that is not broken is not refused.
func TestBrokenReleasesDoNotServe(t *testing.T) {
	p := newPod(t)
	open := func(name string) (*upgrade.Store, error) {
		return upgrade.Open(t.Context(), release(t, name), upgrade.Options{Dir: p.dir, Cgroup: p.cgroup, Accept: upgrade.AcceptAny})
	}
	s, err := open("1")
	must(t, err)
	p.fill(t, s, 4)
	at := p.connect(t, service(2))
	must(t, s.Close())
	before := names(t, p.dir)
	for _, c := range []struct{ name, want string }{
		{"offset", "mesh_tcx: a packet with its workload's address"},
		{"missing", "mesh_sendmsg6"},
		{"swapped", "mesh_connect4 is CGroupSockAddr/CGroupInet6Connect"},
		{"reordered", "value.endpoint, an integer of 8 bytes, at byte 0"},
		{"rejected", "mesh_sock_ops"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := open(c.name)
			if err == nil {
				_, err = s.Upgrade(t.Context(), upgrade.Attempt{})
				must(t, s.Close())
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if diff := cmp.Diff(before, names(t, p.dir)); diff != "" {
				t.Errorf("refusing left (-before +after):\n%s", diff)
			}
			if got := p.connect(t, service(2)); got != at {
				t.Errorf("the pod was on %s, is on %s", at, got)
			}
		})
	}
	t.Run("unhealthy", func(t *testing.T) {
		s, err := open("unhealthy")
		must(t, err)
		defer s.Close()
		serving := s.Word().Serve()
		stop, done := make(chan struct{}), make(chan struct{})
		var refused atomic.Int64
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					p.orders <- func() { p.tryConnect(&refused) }
				}
			}
		}()
		_, err = s.Upgrade(t.Context(), upgrade.Attempt{Canary: Canary([]uint16{upgrade.Shares / 4, upgrade.Shares}, time.Second)})
		close(stop)
		<-done
		if err == nil || !strings.Contains(err.Error(), "withdrawn at canary 25%: drops (refused_no_endpoint)") {
			t.Errorf("%v", err)
		}
		if refused.Load() == 0 {
			t.Error("it refused nothing, so it was not tried")
		}
		if got := s.Word(); got.Serve() != serving || got.Canary() != 0 {
			t.Errorf("it serves: %v", got)
		}
	})
	t.Run("control: a sound one", func(t *testing.T) {
		s, err := open("2")
		must(t, err)
		defer s.Close()
		_, err = s.Upgrade(t.Context(), upgrade.Attempt{})
		must(t, err)
		if got := p.connect(t, service(2)); got != at {
			t.Errorf("the pod was on %s, is on %s", at, got)
		}
	})
}

// tryConnect connects to a service and counts whether that was refused.
func (p *pod) tryConnect(refused *atomic.Int64) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	to := service(2)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); errors.Is(err, unix.ECONNREFUSED) {
		refused.Add(1)
	}
}
