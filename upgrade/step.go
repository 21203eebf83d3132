// SPDX-License-Identifier: Apache-2.0

package upgrade

import "fmt"

// Step names a side effect on the pinned state. Each is one change that a kill can come before or after; together they
// are all there is, so a test that kills at every step has been everywhere. Names and values are stored: stable.
type Step uint32

// The steps. What they act on is in the log's generation and in [Options.Trace].
const (
	StepRaiseEpoch Step = iota + 1
	StepSwapWord
	StepSwapPhase
	StepRecordDigest
	StepMakeDirectory
	StepPinSuper
	StepPinMap
	StepPinCalls
	StepPinEntry
	StepPinProgram
	StepPublish
	StepFillSlot
	StepClearSlot
	StepAttach
	StepPinLink
	StepReplaceLink
	StepMarkDead
	StepUnpin
	StepRemoveDirectory
	StepLinkCurrent
	StepPinRelease
	StepTell
	StepSettle
	StepCopy
	StepReap
	StepSweep
)

var stepNames = [...]string{
	StepRaiseEpoch:      "raise-epoch",
	StepSwapWord:        "swap-word",
	StepSwapPhase:       "swap-phase",
	StepRecordDigest:    "record-digest",
	StepMakeDirectory:   "make-directory",
	StepPinSuper:        "pin-super",
	StepPinMap:          "pin-map",
	StepPinCalls:        "pin-calls",
	StepPinEntry:        "pin-entry",
	StepPinProgram:      "pin-program",
	StepPublish:         "publish-generation",
	StepFillSlot:        "fill-slot",
	StepClearSlot:       "clear-slot",
	StepAttach:          "attach",
	StepPinLink:         "pin-link",
	StepReplaceLink:     "replace-link",
	StepMarkDead:        "mark-dead",
	StepUnpin:           "unpin",
	StepRemoveDirectory: "remove-directory",
	StepLinkCurrent:     "link-current",
	StepPinRelease:      "pin-release",
	StepTell:            "tell-history",
	StepSettle:          "settle-entries",
	StepCopy:            "copy-entries",
	StepReap:            "reap-tombstones",
	StepSweep:           "sweep-sockets",
}

// Steps lists every step there is.
func Steps() []Step {
	all := make([]Step, 0, len(stepNames)-1)
	for s := StepRaiseEpoch; int(s) < len(stepNames); s++ {
		all = append(all, s)
	}
	return all
}

// String is the stable name.
func (s Step) String() string {
	if s == 0 || int(s) >= len(stepNames) {
		return fmt.Sprintf("step-%d", uint32(s))
	}
	return stepNames[s]
}

// journal runs steps. An owner's journal has a super: it refuses to begin a step once the epoch is over, and logs each
// into super after it is done. A writer owns no epoch and has none.
type journal struct {
	super      *super
	epoch      uint16
	generation uint16 // what the log shows the step for
	trace      func(Step, string)
}

func (j *journal) do(step Step, object string, change func() error) error {
	if j.super != nil {
		if found := j.super.word(); found.Epoch() != j.epoch {
			return fmt.Errorf("%v %s: %w", step, object, &StaleError{found.WithEpoch(j.epoch), found})
		}
	}
	if err := change(); err != nil {
		return fmt.Errorf("%v %s: %w", step, object, err)
	}
	if j.trace != nil {
		j.trace(step, object)
	}
	if j.super == nil {
		return nil
	}
	return j.super.log(j.epoch, step, j.generation)
}
