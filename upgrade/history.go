// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind says what an event was. Stored, so the values never change.
type Kind uint16

// The kinds.
const (
	KindInstall  Kind = iota + 1 // the first generation of a tree
	KindUpgrade                  // another release serves
	KindRollback                 // the one before it serves again
	KindCanary                   // a share of new connections gets another release
	KindWithdraw                 // and no longer
	KindBridge                   // entries move to another layout
	KindRetire                   // a generation is gone
)

var kindNames = [...]string{
	KindInstall: "install", KindUpgrade: "upgrade", KindRollback: "rollback", KindCanary: "canary",
	KindWithdraw: "withdraw", KindBridge: "bridge", KindRetire: "retire",
}

// String is the stable name.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind-%d", uint16(k))
	}
	return kindNames[k]
}

// MarshalText makes JSON show the name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a name.
func (k *Kind) UnmarshalText(text []byte) error {
	for i, name := range kindNames {
		if name != "" && name == string(text) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("unknown kind of event %q", text)
}

// Event is one entry of the history, which is kept in super and so outlives every agent.
type Event struct {
	When   time.Time `json:"when"`
	Epoch  uint16    `json:"epoch"`            // of the owner that did it
	Kind   Kind      `json:"kind"`             //
	From   uint16    `json:"from,omitempty"`   // the generation that served before
	To     uint16    `json:"to,omitempty"`     // the one that serves after; of a canary or a bridge, the one that is coming
	Digest string    `json:"digest,omitempty"` // first 32 digits of that of the release that the event is about
	Text   string    `json:"text"`             // why, for people
}

// maxText is what super has room for.
const maxText = len(superSuperEvent{}.Text)

// tell appends an event.
func (s *Store) tell(kind Kind, from, to uint16, digest [32]byte, format string, args ...any) error {
	e := superSuperEvent{When: uint64(time.Now().UnixNano()), From: from, To: to, Kind: uint16(kind)}
	copy(e.Digest[:], digest[:])
	text := fmt.Sprintf(format, args...)
	for len(text) > maxText {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	copy(e.Text[:], text)
	return s.journal.do(StepTell, kind.String(), func() error {
		return s.view.super.inEpoch(s.journal.epoch, superSuperRequest{Op: uint32(superSuperOpSUPER_TELL), Event: e})
	})
}

// events reads the history, oldest first.
func (s *super) events() []Event {
	block := *s.block
	size := uint64(len(block.History))
	var all []Event
	for i := max(block.Events, size) - size; i < block.Events; i++ {
		e := &block.History[i%size]
		all = append(all, Event{
			When: time.Unix(0, int64(e.When)), Epoch: e.Epoch, Kind: Kind(e.Kind), From: e.From, To: e.To,
			Digest: hex.EncodeToString(e.Digest[:]), Text: string(bytes.TrimRight(e.Text[:], "\x00")),
		})
	}
	return all
}

// lastFate is what became of a release last, "" if the history does not know it.
func (s *super) lastFate(digest [32]byte) Kind {
	name := hex.EncodeToString(digest[:16])
	var fate Kind
	for _, e := range s.events() {
		if strings.EqualFold(e.Digest, name) {
			fate = e.Kind
		}
	}
	return fate
}

// Fate is what became last of the release that [Open] was given, 0 if the history does not know it, or if it serves with
// other limits: no release is judged by those.
func (s *Store) Fate() Kind {
	if s.view.super.digest(s.Word().Serve()) == s.release.digest {
		return 0
	}
	return s.view.super.lastFate(s.release.digest)
}
