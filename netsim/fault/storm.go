// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Storm changes the control plane again and again: services that nobody dials, whose endpoints come and go.
type Storm struct {
	File      string        `json:"file"` // which is made for it
	Services  int           `json:"services"`
	Endpoints int           `json:"endpoints"` // of each service
	Every     time.Duration `json:"every"`
	Seed      uint64        `json:"seed"`

	changes atomic.Uint64
	stop    context.CancelFunc
	over    sync.WaitGroup
	err     error // once over
}

func (s *Storm) String() string {
	return fmt.Sprintf("storm in %s: %d services of %d endpoints change every %v", s.File, s.Services, s.Endpoints, s.Every)
}

// Prepare makes sure that the file is not there.
func (s *Storm) Prepare(context.Context) error {
	if _, err := os.Stat(s.File); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is in the way: %w", s.File, errors.Join(err, fs.ErrExist))
	}
	if s.Services < 1 || s.Services > 250 || s.Endpoints < 1 || s.Endpoints > 250 || s.Every <= 0 {
		return fmt.Errorf("%d services of %d endpoints every %v: want 1 to 250 of each", s.Services, s.Endpoints, s.Every)
	}
	return nil
}

// Inject returns after the first change; the others come until Heal.
func (s *Storm) Inject(ctx context.Context) error {
	random := rand.New(rand.NewPCG(s.Seed, 1))
	if err := s.change(random); err != nil {
		return err
	}
	going, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.over.Go(func() {
		tick := time.NewTicker(s.Every)
		defer tick.Stop()
		for {
			select {
			case <-going.Done():
				return
			case <-tick.C:
				if s.err = s.change(random); s.err != nil {
					return
				}
			}
		}
	})
	return nil
}

func (s *Storm) change(random *rand.Rand) error {
	if err := replaceFile(s.File, s.documents(random), 0o644); err != nil {
		return fmt.Errorf("write storm: %w", err)
	}
	s.changes.Add(1)
	return nil
}

// documents are the storm's services, each with a random part of its endpoints.
func (s *Storm) documents(random *rand.Rand) []byte {
	var text strings.Builder
	for n := range s.Services {
		fmt.Fprintf(&text, `---
apiVersion: v1
kind: Service
metadata: {name: storm-%[1]d, namespace: evenkeel-storm}
spec: {clusterIP: 10.250.1.%[2]d, ports: [{port: 80, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: storm-%[1]d, namespace: evenkeel-storm, labels: {kubernetes.io/service-name: storm-%[1]d}}
addressType: IPv4
ports: [{port: 80, protocol: TCP}]
endpoints:
`, n, n+1)
		for e := range s.Endpoints {
			fmt.Fprintf(&text, "- {addresses: [10.251.%d.%d], conditions: {ready: %v}}\n", n+1, e+1, random.IntN(2) == 0)
		}
	}
	return []byte(text.String())
}

// Heal ends the storm and removes its file.
func (s *Storm) Heal(context.Context) error {
	if s.stop != nil {
		s.stop()
		s.over.Wait()
	}
	if err := os.Remove(s.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove storm: %w", err)
	}
	return s.err
}

// Active counts the changes.
func (s *Storm) Active(context.Context) (uint64, error) { return s.changes.Load(), nil }
