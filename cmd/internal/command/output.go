// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Output is the form in which a command prints its document: table or json.
type Output string

// Flag adds -o to a command.
func (o *Output) Flag(c *cobra.Command) {
	*o = "table"
	c.Flags().StringVarP((*string)(o), "output", "o", "table", "form of the output: table or json")
}

// Check refuses a form that there is not.
func (o Output) Check(c *cobra.Command) error {
	if o != "table" && o != "json" {
		return Usage(c, fmt.Errorf("--output %q: table and json are known", string(o)))
	}
	return nil
}

// JSON writes a document for programs.
func JSON(w io.Writer, document any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
