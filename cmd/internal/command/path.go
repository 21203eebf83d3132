// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"

	"github.com/spf13/pflag"
)

// PathVar defines a flag whose value is the path of something. An empty one is refused: it is what is left of a variable
// that a script has not set, and neither the directory that the process is in nor the default is meant.
func PathVar(f *pflag.FlagSet, p *string, name, value, usage string) {
	*p = value
	f.Var((*path)(p), name, usage)
}

// path is the value of such a flag.
type path string

func (p *path) String() string { return string(*p) }
func (*path) Type() string     { return "path" }

func (p *path) Set(value string) error {
	if value == "" {
		return errors.New("it is empty")
	}
	*p = path(value)
	return nil
}
