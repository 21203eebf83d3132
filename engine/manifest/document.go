// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is one decoded Kubernetes object: *corev1.Namespace, *corev1.Node, *corev1.Pod, *corev1.Service or
// *discoveryv1.EndpointSlice.
type Object interface {
	runtime.Object
	metav1.Object
}

// The kinds that are read.
const (
	KindNamespace     = "Namespace"
	KindNode          = "Node"
	KindPod           = "Pod"
	KindService       = "Service"
	KindEndpointSlice = "EndpointSlice"
)

// newObject returns an empty object of a kind, nil if that kind is not read here.
func newObject(gvk schema.GroupVersionKind) Object {
	switch gvk {
	case corev1.SchemeGroupVersion.WithKind(KindNamespace):
		return &corev1.Namespace{}
	case corev1.SchemeGroupVersion.WithKind(KindNode):
		return &corev1.Node{}
	case corev1.SchemeGroupVersion.WithKind(KindPod):
		return &corev1.Pod{}
	case corev1.SchemeGroupVersion.WithKind(KindService):
		return &corev1.Service{}
	case discoveryv1.SchemeGroupVersion.WithKind(KindEndpointSlice):
		return &discoveryv1.EndpointSlice{}
	}
	return nil
}

func kindOf(o Object) string {
	switch o.(type) {
	case *corev1.Namespace:
		return KindNamespace
	case *corev1.Node:
		return KindNode
	case *corev1.Pod:
		return KindPod
	case *corev1.Service:
		return KindService
	case *discoveryv1.EndpointSlice:
		return KindEndpointSlice
	}
	return fmt.Sprintf("%T", o)
}

// Document is one object and where it was read. Line is that of its first field, from 1.
type Document struct {
	Object Object
	File   string
	Line   int
}

// Key returns what no two documents of one source may share.
func (d Document) Key() Key { return KeyOf(d.Object) }

// Origin returns "file:line".
func (d Document) Origin() string { return origin(d.File, d.Line) }

// Skipped is a document of a kind that is not read here.
type Skipped struct {
	schema.GroupVersionKind
	Namespace, Name string
	File            string
	Line            int
}

// Origin returns "file:line".
func (s Skipped) Origin() string { return origin(s.File, s.Line) }

// Key identifies an object within a source. Namespace is empty for Namespaces and Nodes.
type Key struct {
	Kind, Namespace, Name string
}

// KeyOf returns the key of an object. The kind follows from its Go type, so an object of a typed client, which has no
// TypeMeta, has the same key as one that was read from a file.
func KeyOf(o Object) Key {
	return Key{Kind: kindOf(o), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// String returns "Service shop/web" or "Node n1", and "Service" alone for a key without a name.
func (k Key) String() string {
	switch {
	case k.Name == "":
		return k.Kind
	case k.Namespace == "":
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Error says why a document was refused, and where. Line is 0 if the reason concerns the file as a whole.
type Error struct {
	File string
	Line int
	// Object is "Service shop/web", as far as that could be read.
	Object string
	// Field is the path of the field, "spec.ports[0].port"; empty if the reason is not about one field.
	Field  string
	Reason string
}

// Error returns "web.yaml:12: Service shop/web: spec.ports[0].port: reason" without the parts that are not known.
func (e *Error) Error() string {
	text := origin(e.File, e.Line) + ": "
	if e.Object != "" {
		text += e.Object + ": "
	}
	if e.Field != "" {
		text += e.Field + ": "
	}
	return text + e.Reason
}

// within puts a step in front of the field's path while the error travels outwards, so that paths cost nothing when
// all is well.
func (e *Error) within(step string) *Error {
	if e.Field != "" && e.Field[0] != '[' {
		step += "."
	}
	e.Field = step + e.Field
	return e
}

// Place is where a document was read.
type Place struct {
	File string
	Line int
}

// Keys are the keys of one source, each with its place.
type Keys map[Key]Place

// Add notes a key, or returns an *Error that names both places if it is there already.
func (k Keys) Add(key Key, at Place) error {
	if first, twice := k[key]; twice {
		return &Error{File: at.File, Line: at.Line, Object: key.String(), Reason: fmt.Sprintf(
			"is already defined at %s: remove or rename one of them", origin(first.File, first.Line))}
	}
	k[key] = at
	return nil
}

// unique returns an error if two documents have the same key.
func unique(docs []Document) error {
	keys := make(Keys, len(docs))
	for _, d := range docs {
		if err := keys.Add(d.Key(), Place{d.File, d.Line}); err != nil {
			return err
		}
	}
	return nil
}

func origin(file string, line int) string {
	if line == 0 {
		return file
	}
	return file + ":" + strconv.Itoa(line)
}
