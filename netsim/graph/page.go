// SPDX-License-Identifier: Apache-2.0

package graph

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"github.com/evenkeel/evenkeel/netsim"
)

//go:embed page.html
var pageText string

// page writes the lab as one HTML file.
func page(w io.Writer, info netsim.Info) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"add":  func(a, b int) int { return a + b },
		"cut":  cut,
		"hint": hint,
	}).Parse(pageText)
	if err != nil {
		return err
	}
	return t.Execute(w, layOut(info))
}

// cut shortens a name to what fits, in its middle: the ends of names are what tells them apart.
func cut(most int, text string) string {
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	tail := most / 2
	return string(runes[:most-1-tail]) + "…" + string(runes[len(runes)-tail:])
}

// hint is what a pod says when the mouse is over it.
func hint(c chip) string {
	text := fmt.Sprintf("%s/%s\n%s", c.Namespace, c.Name, join(c.Addresses, "\n"))
	switch {
	case c.Enrolled:
		text += "\nenrolled"
	case c.Refusal != "":
		text += "\nnot enrolled: " + c.Refusal
	default:
		text += "\nnot enrolled"
	}
	for _, s := range c.Serve {
		text += "\nserves " + s
	}
	return text
}
