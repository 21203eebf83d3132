// SPDX-License-Identifier: Apache-2.0

package engine

// periods numbers grace periods, from 1: what was done when n had begun is over for all readers once one after n has
// ended.
type periods struct {
	begun, ended uint32
}

func (p *periods) begin() uint32 {
	p.begun++
	return p.begun
}

func (p *periods) end(n uint32) { p.ended = max(p.ended, n) }

// running reports whether a reader may still be at work that began before something was done when n had begun.
func (p *periods) running(n uint32) bool { return n != 0 && p.ended <= n }
