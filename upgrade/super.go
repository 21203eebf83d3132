// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// super is the one page that decides. It is read through a read-only mapping, so that a word is never seen torn, and
// changed by running the program super_change, one system call each.
type super struct {
	m      *ebpf.Map
	page   []byte
	block  *superSuperBlock
	change *ebpf.Program // nil for those who only read
}

// abiError says that a tree was made by a release whose super looks different.
type abiError struct{ found uint32 }

func (e *abiError) Error() string {
	return fmt.Sprintf("super has ABI %d, this release knows %d: use the release that made it",
		e.found, superSuperMagicSUPER_ABI)
}

// createSuper makes the map, not pinned yet. Once frozen no user space, root included, can write to it.
func createSuper() (*ebpf.Map, error) {
	spec, err := loadSuper()
	if err != nil {
		return nil, fmt.Errorf("create super: %w", err)
	}
	m, err := ebpf.NewMap(spec.Maps[superMapSuper])
	if err != nil {
		return nil, fmt.Errorf("create super: %w", err)
	}
	first := superSuperBlock{Magic: uint32(superSuperMagicSUPER_MAGIC), Abi: uint32(superSuperMagicSUPER_ABI)}
	if err := m.Put(uint32(0), &first); err != nil {
		m.Close()
		return nil, fmt.Errorf("create super: %w", err)
	}
	if err := m.Freeze(); err != nil {
		m.Close()
		return nil, fmt.Errorf("create super: %w", err)
	}
	return m, nil
}

// openSuper takes over a map that lies where super should. On error the map is closed; the error says what is wrong
// with it.
func openSuper(m *ebpf.Map) (_ *super, err error) {
	s := &super{m: m}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if size := unsafe.Sizeof(superSuperBlock{}); m.Type() != ebpf.Array || m.KeySize() != 4 ||
		uintptr(m.ValueSize()) != size || m.MaxEntries() != 1 || m.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return nil, fmt.Errorf("it is %v, not an array of one value of %d bytes that can be mapped into memory", m, size)
	}
	about, err := m.Info()
	if err != nil {
		return nil, err
	}
	if !about.Frozen() {
		return nil, errors.New("the map is not frozen")
	}
	s.page, err = unix.Mmap(m.FD(), 0, int(m.ValueSize()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map it into memory: %w", err)
	}
	s.block = (*superSuperBlock)(unsafe.Pointer(&s.page[0]))
	if s.block.Magic != uint32(superSuperMagicSUPER_MAGIC) {
		return nil, fmt.Errorf("its magic is %#x, not %#x", s.block.Magic, uint32(superSuperMagicSUPER_MAGIC))
	}
	if s.block.Abi != uint32(superSuperMagicSUPER_ABI) {
		return nil, &abiError{s.block.Abi}
	}
	return s, nil
}

// arm loads the program that makes changes.
func (s *super) arm() error {
	if s.change != nil {
		return nil
	}
	spec, err := loadSuper()
	if err != nil {
		return fmt.Errorf("load super_change: %w", err)
	}
	var objects superPrograms
	options := &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{superMapSuper: s.m}}
	if err := spec.LoadAndAssign(&objects, options); err != nil {
		return fmt.Errorf("load super_change: %w", err)
	}
	s.change = objects.SuperChange
	return nil
}

func (s *super) word() Word   { return Word(atomic.LoadUint64(&s.block.Word)) }
func (s *super) phase() Phase { return Phase(atomic.LoadUint64(&s.block.Phase)) }

// digest is what the generation at this place was loaded from.
func (s *super) digest(generation uint16) [32]byte { return s.block.Digests[generation%places] }

func (s *super) run(request *superSuperRequest) error {
	code, err := s.change.Run(&ebpf.RunOptions{Context: request, ContextOut: request})
	if err != nil {
		return fmt.Errorf("run super_change: %w", err)
	}
	if code != 0 {
		return fmt.Errorf("run super_change: it refused operation %d with %d", request.Op, int32(code))
	}
	return nil
}

// swap stores a word if the expected one is still there, else it returns a [StaleError] with the one that is.
func (s *super) swap(expect, store Word) error {
	request := superSuperRequest{Op: uint32(superSuperOpSUPER_SWAP_WORD), Expect: uint64(expect), Store: uint64(store)}
	if err := s.run(&request); err != nil {
		return err
	}
	if Word(request.Found) != expect {
		return &StaleError{expect, Word(request.Found)}
	}
	return nil
}

// swapPhase is swap for the phase.
func (s *super) swapPhase(expect, store Phase) error {
	request := superSuperRequest{
		Op: uint32(superSuperOpSUPER_SWAP_PHASE), Expect: uint64(expect), Store: uint64(store),
	}
	if err := s.run(&request); err != nil {
		return err
	}
	if found := Phase(request.Found); found != expect {
		now := s.word()
		return fmt.Errorf("phase is %v, not %v: %w", found, expect, &StaleError{now.WithEpoch(expect.Epoch()), now})
	}
	return nil
}

// record stores what a generation was loaded from.
func (s *super) record(epoch, generation uint16, digest [32]byte) error {
	return s.inEpoch(epoch, superSuperRequest{
		Op: uint32(superSuperOpSUPER_RECORD), Place: uint32(generation % places), Digest: digest,
	})
}

// log appends a step.
func (s *super) log(epoch uint16, step Step, generation uint16) error {
	return s.inEpoch(epoch, superSuperRequest{
		Op: uint32(superSuperOpSUPER_LOG), Place: uint32(step), Store: uint64(generation),
	})
}

func (s *super) inEpoch(epoch uint16, request superSuperRequest) error {
	request.Expect = uint64(Word(0).WithEpoch(epoch))
	if err := s.run(&request); err != nil {
		return err
	}
	if request.Found != request.Expect {
		found := Word(request.Found)
		return &StaleError{found.WithEpoch(epoch), found}
	}
	return nil
}

// raiseEpoch makes the caller the owner: from now on whoever held the state before changes nothing. The phase repeats
// the epoch; a kill between the two leaves it one behind, which the next owner mends in the same way.
func (s *super) raiseEpoch() (uint16, error) {
	for { // as long as an owner that is not quite dead moves a word in between
		word, phase := s.word(), s.phase()
		epoch := max(word.Epoch()+1, 1)
		err := s.swap(word, word.WithEpoch(epoch))
		if err == nil {
			err = s.swapPhase(phase, phase.withEpoch(epoch))
		}
		var stale *StaleError
		if !errors.As(err, &stale) {
			return epoch, err
		}
	}
}

func (s *super) close() error {
	var errs []error
	if s.page != nil {
		errs = append(errs, unix.Munmap(s.page))
		s.page, s.block = nil, nil
	}
	if s.change != nil {
		errs = append(errs, s.change.Close())
	}
	return errors.Join(append(errs, s.m.Close())...)
}
