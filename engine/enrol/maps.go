// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

// Maps are those of the data plane that enrolment writes. They stay the caller's.
type Maps struct {
	Workloads *ebpf.Map // workloads
	Names     *ebpf.Map // workload_names
	// Limit is how many pods may be enrolled, 0 for as many as the maps have room for.
	Limit uint32
}

// Names of the maps, for messages and for bpf.Flag.
const (
	mapWorkloads = "workloads"
	mapNames     = "workload_names"
)

// FullError says that there is no room for one more workload.
type FullError struct {
	Map  string
	Max  uint32 // elements that it may have
	Flag string // of the agent, that sizes it
}

func (e *FullError) Error() string {
	return fmt.Sprintf("map %s is full (%d elements): withdraw pods that are gone, or start the agent with a larger %s",
		e.Map, e.Max, e.Flag)
}

// Workload is a pod that is enrolled.
type Workload struct {
	// Name is "namespace/name" and Netns the path that it was enrolled by; both are empty if they were lost.
	Name, Netns string
	Cookie      uint64 // of its network namespace
	IP4, IP6    netip.Addr
	// Interface is the index of its veth in the namespace of the node, 0 if none was found.
	Interface   int
	Incarnation uint32
	SourceCheck bool
	Canary      bool
}

// List returns the workloads, sorted by name.
func List(maps Maps) ([]Workload, error) {
	table, err := read(maps)
	return table.workloads, err
}

// table is all that the maps hold.
type table struct {
	workloads []Workload // sorted by name
	cookies   map[uint64]bool
	// strays are the cookies of namespaces that have a name, but not the entry that makes a workload: an enrolment or a
	// withdrawal was killed, or is under way.
	strays map[uint64]bool
	// interfaces are the elements under the indexes of interfaces; stale are those of no workload, or of one that has
	// another interface by now or whose sources are not checked any more.
	interfaces map[uint32]*bpf.MeshWorkload
	stale      []uint32
}

func read(maps Maps) (table, error) {
	t := table{
		cookies: make(map[uint64]bool), strays: make(map[uint64]bool), interfaces: make(map[uint32]*bpf.MeshWorkload),
	}
	var key bpf.MeshWorkloadKey
	var value bpf.MeshWorkload
	it := maps.Workloads.Iterate()
	for it.Next(&key, &value) {
		if key.By == uint32(bpf.MeshWorkloadByWORKLOAD_BY_NETNS) {
			t.cookies[key.Id] = true
			t.workloads = append(t.workloads, workloadOf(key.Id, value))
		} else {
			found := value
			t.interfaces[uint32(key.Id)] = &found
		}
	}
	if err := it.Err(); err != nil {
		return table{}, fmt.Errorf("read map workloads: %w", err)
	}
	names := make(map[uint64]bpf.MeshWorkloadName)
	var cookie uint64
	var name bpf.MeshWorkloadName
	it = maps.Names.Iterate()
	for it.Next(&cookie, &name) {
		names[cookie] = name
		if !t.cookies[cookie] {
			t.strays[cookie] = true
		}
	}
	if err := it.Err(); err != nil {
		return table{}, fmt.Errorf("read map workload_names: %w", err)
	}
	checked := make(map[uint64]int)
	for i := range t.workloads {
		if w := &t.workloads[i]; w.SourceCheck {
			checked[w.Cookie] = w.Interface
		}
	}
	for index, found := range t.interfaces {
		if its, is := checked[found.Netns]; !is || its != int(index) {
			t.stale = append(t.stale, index)
		}
	}
	slices.Sort(t.stale)
	for i := range t.workloads {
		w := &t.workloads[i]
		name := names[w.Cookie]
		w.Name, w.Netns = text(name.Pod[:]), text(name.Netns[:])
	}
	slices.SortFunc(t.workloads, func(a, b Workload) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Cookie, b.Cookie))
	})
	return t, nil
}

// readOne reads one workload, nil if it is none, and what is under the index of its interface, nil if nothing is.
func readOne(maps Maps, cookie uint64) (*Workload, *bpf.MeshWorkload, error) {
	value, err := lookup[bpf.MeshWorkload](maps.Workloads, byNetns(cookie))
	if err != nil {
		return nil, nil, fmt.Errorf("read map workloads: %w", err)
	}
	if value == nil {
		return nil, nil, nil
	}
	found, err := lookup[bpf.MeshWorkload](maps.Workloads, byInterface(value.Interface))
	if err != nil {
		return nil, nil, fmt.Errorf("read map workloads: %w", err)
	}
	name, err := lookup[bpf.MeshWorkloadName](maps.Names, cookie)
	if err != nil {
		return nil, nil, fmt.Errorf("read map workload_names: %w", err)
	}
	w := workloadOf(cookie, *value)
	if name != nil {
		w.Name, w.Netns = text(name.Pod[:]), text(name.Netns[:])
	}
	return &w, found, nil
}

func workloadOf(cookie uint64, v bpf.MeshWorkload) Workload {
	return Workload{
		Cookie: cookie, IP4: v.Ip4.Addr(), IP6: v.Ip6.Addr(), Interface: int(v.Interface), Incarnation: v.Incarnation,
		SourceCheck: v.Flags&uint32(bpf.MeshWorkloadFlagWORKLOAD_SOURCE_CHECK) != 0,
		Canary:      v.Flags&uint32(bpf.MeshWorkloadFlagWORKLOAD_CANARY) != 0,
	}
}

// lookup reads one element; nil if there is none.
func lookup[V any](m *ebpf.Map, key any) (*V, error) {
	value := new(V)
	err := m.Lookup(key, value)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return value, nil
}

// putNew writes one element of a hash unless it is there already, and says whether it did. Readers see the old one or
// the new one, whole: the kernel links a new element in place of the old.
func putNew[V comparable](m *ebpf.Map, name string, key any, value V) (bool, error) {
	old, err := lookup[V](m, key)
	if err != nil {
		return false, fmt.Errorf("read map %s: %w", name, err)
	}
	if old != nil && *old == value {
		return false, nil
	}
	err = m.Put(key, value)
	if errors.Is(err, unix.E2BIG) {
		return false, &FullError{Map: name, Max: m.MaxEntries(), Flag: bpf.Flag(name)}
	}
	if err != nil {
		return false, fmt.Errorf("write map %s: %w", name, err)
	}
	return true, nil
}

// remove deletes one element, or finds it gone.
func remove(m *ebpf.Map, name string, key any) error {
	if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete from map %s: %w", name, err)
	}
	return nil
}

func byNetns(cookie uint64) bpf.MeshWorkloadKey {
	return bpf.MeshWorkloadKey{Id: cookie, By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_NETNS)}
}

func byInterface(index uint32) bpf.MeshWorkloadKey {
	return bpf.MeshWorkloadKey{Id: uint64(index), By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_INTERFACE)}
}

// The two parts of a pod's name, but for how long they may be: an expression that counts is compiled, by every process
// that starts, into that many.
var (
	namespaceForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	podForm       = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
)

// CheckName refuses what is not the name of a Kubernetes pod: "namespace/name", both as RFC 1123 has them.
func CheckName(name string) error {
	namespace, pod, _ := strings.Cut(name, "/")
	if len(namespace) > 63 || len(pod) > 253 || !namespaceForm.MatchString(namespace) || !podForm.MatchString(pod) {
		return fmt.Errorf("pod %q: a pod is named NS/NAME, in lower-case letters, digits, '-' and '.'", name)
	}
	return nil
}

// nameOf is how the map holds the name of a pod, with room for the NUL that ends each string.
func nameOf(pod Pod) (*bpf.MeshWorkloadName, error) {
	n := new(bpf.MeshWorkloadName)
	if err := fill(n.Pod[:], pod.Name); err != nil {
		return nil, fmt.Errorf("pod %s: its name %w", pod.Name, err)
	}
	if err := fill(n.Netns[:], pod.Netns); err != nil {
		return nil, fmt.Errorf("pod %s: the path of its namespace, %s, %w", pod.Name, pod.Netns, err)
	}
	return n, nil
}

func fill(field []int8, s string) error {
	if len(s) >= len(field) {
		return fmt.Errorf("is longer than %d bytes", len(field)-1)
	}
	for i := range len(s) {
		field[i] = int8(s[i])
	}
	return nil
}

// text is what is in a field, up to its NUL.
func text(field []int8) string {
	b := make([]byte, 0, len(field))
	for _, c := range field {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}
