// SPDX-License-Identifier: Apache-2.0

// Package tamper is a man in the middle that does one wrong to each connection that passes through it, exactly, and
// counts what it did. It is there to try the instrument: what it did the verdict must say, and nothing else. It knows
// frames, so that it can lose or repeat one whole where nothing below would notice.
package tamper
