// SPDX-License-Identifier: Apache-2.0

package netsim

import "errors"

// ztunnelProgram is a real ztunnel.
func (l *Lab) ztunnelProgram(*nodeState) (program, error) {
	return program{}, errors.New("not yet")
}
