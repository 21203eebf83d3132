// SPDX-License-Identifier: Apache-2.0

package source

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/evenkeel/evenkeel/engine"
)

// TestEqualComparesEveryField sets one field after the other: a field that is added to the engine's model and
// forgotten here would mean changes that are never sent.
func TestEqualComparesEveryField(t *testing.T) {
	everyField(t, equalService)
	everyField(t, equalSlice)
	everyField(t, equalNode)
	everyField(t, equalWorkload)
	everyField(t, equalHints)
	everyField(t, func(a, b *engine.Endpoint) bool { return equalEndpoint(*a, *b) })
}

func everyField[T any](t *testing.T, equal func(a, b *T) bool) {
	t.Helper()
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		var a, b T
		if !equal(&a, &b) {
			t.Fatalf("%T: zero values differ", a)
		}
		set(t, reflect.ValueOf(&b).Elem().FieldByIndex(f.Index))
		if equal(&a, &b) {
			t.Errorf("%T: %s is not compared", a, f.Name)
		}
	}
}

func set(t *testing.T, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[netip.Addr]() {
		v.Set(reflect.ValueOf(netip.IPv6Loopback()))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(1)
	case reflect.Int64:
		v.SetInt(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.Zero(v.Type().Key()), reflect.Zero(v.Type().Elem()))
	default:
		t.Fatalf("no value for a field of type %s", v.Type())
	}
}
