// SPDX-License-Identifier: Apache-2.0

//go:build profile

package stopwatch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
)

// profile starts the profiles that are asked for; stop writes them.
func (o Options) profile() (stop func() error, err error) {
	var cpu *os.File
	if o.CPUProfile != "" {
		if cpu, err = os.Create(o.CPUProfile); err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		if err := pprof.StartCPUProfile(cpu); err != nil {
			return nil, errors.Join(fmt.Errorf("profile: %w", err), cpu.Close())
		}
	}
	return func() error {
		var errs []error
		if cpu != nil {
			pprof.StopCPUProfile()
			errs = append(errs, cpu.Close())
		}
		if o.HeapProfile != "" {
			errs = append(errs, writeHeap(o.HeapProfile))
		}
		return errors.Join(errs...)
	}, nil
}

func writeHeap(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	runtime.GC()
	return errors.Join(pprof.WriteHeapProfile(file), file.Close())
}

// Of small objects, too, which an agent has most of.
func init() { runtime.MemProfileRate = 8 << 10 }
