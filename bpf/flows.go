// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Flows calls each for every client socket that carries state, of any namespace, as the program dump_flows of a
// generation reads them from its map sockets. It stops at the first error that each returns.
func Flows(program *ebpf.Program, sockets *ebpf.Map, each func(MeshFlowRecord) error) error {
	it, err := link.AttachIter(link.IterOptions{Program: program, Map: sockets})
	if err != nil {
		return fmt.Errorf("attach iterator over sockets: %w", err)
	}
	defer it.Close()
	file, err := it.Open()
	if err != nil {
		return fmt.Errorf("open iterator over sockets: %w", err)
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<16)
	for {
		var record MeshFlowRecord
		err := binary.Read(r, binary.NativeEndian, &record)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read sockets: %w", err)
		}
		if err := each(record); err != nil {
			return err
		}
	}
}
