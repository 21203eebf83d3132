// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What one input may cost. At the limits that is some hundred MiB of memory for as long as the call takes.
const (
	// MaxFile is the size of a file in bytes.
	MaxFile = 64 << 20
	// MaxDocument is the size of one document in bytes; a List counts as one.
	MaxDocument = 32 << 20
	// MaxUnusual is the size in bytes of a YAML document that uses more than block style, because the full YAML
	// parser needs many times the memory.
	MaxUnusual = 4 << 20
	// MaxValues is the number of keys and values in one document, aliases expanded.
	MaxValues = 4 << 20
)

type limits struct{ file, document, unusual, values int }

var usual = limits{file: MaxFile, document: MaxDocument, unusual: MaxUnusual, values: MaxValues}

// Decode reads all documents of a stream: YAML, documents separated by "---", or JSON values one after the other.
// Lists ("List", "PodList" and so on) are replaced by their items. A namespaced object without a namespace is in
// "default", other defaults are left to the reader of the object. file is only for errors and origins.
//
// Documents of kinds that are not read here are returned as skipped. Anything wrong in one document refuses the whole
// stream with an *Error: syntax, a field that its type does not have or has twice, a value of the wrong type, a name,
// address or port that no cluster would have accepted, two documents with one key.
func Decode(r io.Reader, file string) ([]Document, []Skipped, error) {
	return decode(r, file, usual)
}

func decode(r io.Reader, file string, max limits) ([]Document, []Skipped, error) {
	var documents []Document
	skipped, err := each(r, file, max, func(d Document) error {
		documents = append(documents, d)
		return nil
	})
	if err == nil {
		err = unique(documents)
	}
	if err != nil {
		return nil, nil, err
	}
	return documents, skipped, nil
}

// Each is Decode for streams of which no two documents are needed at once: each is handed to take, and what that does
// not keep is let go before the next is read. It stops with the error of take. Whatever it returns an error for refuses
// what was taken before, too; that two documents have one key is for the caller to see.
func Each(r io.Reader, file string, take func(Document) error) ([]Skipped, error) {
	return each(r, file, usual, take)
}

func each(r io.Reader, file string, max limits, take func(Document) error) ([]Skipped, error) {
	d := decoder{file: file, max: max, typer: newTyper(), checker: newChecker(), take: take}
	chunks := newSplitter(r, max.file)
	for {
		c, err := chunks.next()
		switch {
		case errors.Is(err, io.EOF):
			return d.skipped, nil
		case errors.Is(err, errTooLong):
			return nil, &Error{File: file, Reason: fmt.Sprintf("is larger than %d bytes: split it", max.file)}
		case err != nil:
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if failure := d.chunk(c); failure != nil {
			failure.File = file
			return nil, failure
		}
		if d.refused != nil {
			return nil, d.refused
		}
	}
}

type decoder struct {
	file    string
	max     limits
	typer   *typer
	checker *checker
	take    func(Document) error
	refused error // of take
	skipped []Skipped
}

func (d *decoder) chunk(c chunk) *Error {
	roots, err := d.parse(c)
	if err != nil {
		return err
	}
	for i := range roots {
		if err := d.root(&roots[i]); err != nil {
			return err
		}
	}
	return nil
}

// parse picks the reader. Text in braces is JSON, or else YAML in flow style, which is rare.
func (d *decoder) parse(c chunk) ([]node, *Error) {
	if len(c.text) > d.max.document {
		return nil, &Error{Line: c.line,
			Reason: fmt.Sprintf("the document is larger than %d bytes: split it", d.max.document)}
	}
	body, bodyLine := c.text, c.line
	if isMarker(body, "---") {
		body = body[len("---"):]
	}
	start := strings.TrimLeft(body, " \t\r\n")
	if strings.HasPrefix(start, "{") || strings.HasPrefix(start, "[") {
		bodyLine += strings.Count(body[:len(body)-len(start)], "\n")
		roots, err := readJSON(start, bodyLine, d.max.values)
		if err == nil || strings.HasSuffix(d.file, ".json") || len(c.text) > d.max.unusual {
			return roots, err
		}
	}
	root, stopped, ok := readBlock(c.text, c.line, d.max.values)
	if ok {
		return []node{root}, nil
	}
	if len(c.text) > d.max.unusual {
		return nil, &Error{Line: c.line, Reason: fmt.Sprintf("the document is larger than %d bytes and uses YAML "+
			"beyond plain block style, from line %d on: split it", d.max.unusual, stopped)}
	}
	root, err := readYAML(c.text, c.line, d.max.values)
	if err != nil {
		if strings.HasSuffix(err.Reason, vague) {
			err.Line = max(err.Line, stopped) // the line that broke the block style is most likely the one
		}
		return nil, err
	}
	return []node{root}, nil
}

func (d *decoder) root(n *node) *Error {
	if n.isNull() {
		return nil // nothing but comments
	}
	gvk, err := typeOf(n, schema.GroupVersionKind{})
	if err != nil {
		return err
	}
	if items := n.field("items"); strings.HasSuffix(gvk.Kind, "List") && items != nil {
		return d.list(n, gvk)
	}
	return d.object(n, gvk)
}

// list expands a list. The items of a typed list need not say their kind; those of a plain List must.
func (d *decoder) list(n *node, gvk schema.GroupVersionKind) *Error {
	for i := 0; i < len(n.items); i += 2 {
		key := &n.items[i]
		switch key.text {
		case "apiVersion", "kind", "metadata", "items":
		default:
			return &Error{Line: int(key.line), Object: gvk.Kind, Field: key.text, Reason: "unknown field"}
		}
		if twice(n, i) {
			return &Error{Line: int(key.line), Object: gvk.Kind, Field: key.text, Reason: "the field is there twice"}
		}
	}
	items := n.field("items")
	if items.kind != sequence && !items.isNull() {
		return &Error{Line: int(items.line), Object: gvk.Kind, Field: "items",
			Reason: "needs a list, not " + items.describe()}
	}
	inherited := schema.GroupVersionKind{}
	if gvk.Kind != "List" {
		inherited = gvk.GroupVersion().WithKind(strings.TrimSuffix(gvk.Kind, "List"))
	}
	for i := range items.items {
		if err := d.item(&items.items[i], inherited); err != nil {
			if err.Object == "" {
				err.Object = fmt.Sprintf("%s item %d", gvk.Kind, i)
			}
			return err
		}
	}
	return nil
}

func (d *decoder) item(n *node, inherited schema.GroupVersionKind) *Error {
	gvk, err := typeOf(n, inherited)
	if err != nil {
		return err
	}
	if strings.HasSuffix(gvk.Kind, "List") && n.field("items") != nil {
		return refuse(n, "a list cannot be inside a list")
	}
	return d.object(n, gvk)
}

// typeOf reads apiVersion and kind; what is missing is taken from the list around it, if there is one.
func typeOf(n *node, inherited schema.GroupVersionKind) (schema.GroupVersionKind, *Error) {
	if n.kind != mapping {
		return schema.GroupVersionKind{}, refuse(n, "a document must be a mapping, not %s", n.describe())
	}
	version, kind := n.str("apiVersion"), n.str("kind")
	if version == "" {
		version = inherited.GroupVersion().String()
	}
	if kind == "" {
		kind = inherited.Kind
	}
	if version == "" || kind == "" {
		return schema.GroupVersionKind{}, refuse(n, "a document needs apiVersion and kind, both strings")
	}
	gv, err := schema.ParseGroupVersion(version)
	if err != nil {
		return schema.GroupVersionKind{}, refuse(n.field("apiVersion"), "%v", err).within("apiVersion")
	}
	return gv.WithKind(kind), nil
}

func (d *decoder) object(n *node, gvk schema.GroupVersionKind) *Error {
	key := Key{Kind: gvk.Kind}
	if meta := n.field("metadata"); meta != nil {
		key.Namespace, key.Name = meta.str("namespace"), meta.str("name")
	}
	object := newObject(gvk)
	if object == nil {
		d.skipped = append(d.skipped, Skipped{GroupVersionKind: gvk, Namespace: strings.Clone(key.Namespace),
			Name: strings.Clone(key.Name), File: d.file, Line: int(n.line)})
		return nil
	}
	err := d.typer.fill(n, reflect.ValueOf(object).Elem())
	if err == nil {
		object.GetObjectKind().SetGroupVersionKind(gvk)
		if err = d.checker.check(object); err != nil {
			err.Line = n.lineOf(err.Field)
		}
	}
	if err != nil {
		err.Object = key.String()
		return err
	}
	if d.refused == nil {
		d.refused = d.take(Document{Object: object, File: d.file, Line: int(n.line)})
	}
	return nil
}
