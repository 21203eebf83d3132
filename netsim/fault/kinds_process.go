// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// processKinds are the faults of an agent's process.
func processKinds() []Kind {
	after := Param{"after", "0s", "wait that long first; LOW..HIGH draws a random instant"}
	places := []Param{
		{"number", "1..20", "the how manieth watched call, from 1; LOW..HIGH draws one"},
		{"call", "-", "or the call's text, as in a traced start"},
		{"occurrence", "1", "which of those that read the same"},
		{"when", "before", "before or after"},
	}
	kind := func(name, summary string, zero func() Fault, build func(subject, values) (Fault, error), params ...Param) Kind {
		return Kind{Name: name, Group: "process", Target: "agent", Summary: summary, Params: params, zero: zero, build: build}
	}
	signal := func(number unix.Signal) func(subject, values) (Fault, error) {
		return func(s subject, v values) (Fault, error) {
			after, err := v.duration("after")
			return &Kill{Agent: s.agent(), Signal: number, After: after}, err
		}
	}
	kill := func() Fault { return new(Kill) }
	killAt := func() Fault { return new(KillAt) }
	return []Kind{
		kind("term", "end it by SIGTERM", kill, signal(unix.SIGTERM), after),
		kind("kill", "end it by SIGKILL", kill, signal(unix.SIGKILL), after),
		kind("kill-at", "start it again and kill it before or after a system call", killAt,
			func(s subject, v values) (Fault, error) {
				p, err := place(v, "")
				return &KillAt{Agent: s.agent(), Places: []Place{p}}, err
			}, places...),
		kind("double-crash", "the same, and once more while it recovers", killAt,
			func(s subject, v values) (Fault, error) {
				p, err := place(v, "")
				q, err2 := place(v, "then-")
				return &KillAt{Agent: s.agent(), Places: []Place{p, q}}, errors.Join(err, err2)
			}, append(places, Param{"then-number", "1..20", "the same for the second crash"},
				Param{"then-call", "-", ""}, Param{"then-occurrence", "1", ""}, Param{"then-when", "before", ""})...),
		kind("crash-loop", "start it and kill it at random instants, again and again", func() Fault { return new(CrashLoop) },
			func(s subject, v values) (Fault, error) {
				count, err := v.number("count")
				within, err2 := v.duration("within")
				if within == 0 {
					err2 = errors.Join(err2, errors.New("within=0s: there is no instant to draw"))
				}
				return &CrashLoop{Agent: s.agent(), Count: count, Within: within, Seed: v.seed}, errors.Join(err, err2)
			}, Param{"count", "50", "how often"}, Param{"within", "200ms", "longest time from start to kill"}),
		kind("stop", "stop all its threads (SIGSTOP)", func() Fault { return new(Stop) },
			func(s subject, _ values) (Fault, error) { return &Stop{Agent: s.agent()}, nil }),
		kind("stop-at", "start it again and stop it before or after a system call", func() Fault { return new(StopAt) },
			func(s subject, v values) (Fault, error) {
				p, err := place(v, "")
				return &StopAt{Agent: s.agent(), Place: p}, err
			}, places...),
		kind("wedge-at", "the same for only the thread that makes the call, as a deadlock", func() Fault { return new(StopAt) },
			func(s subject, v values) (Fault, error) {
				p, err := place(v, "")
				return &StopAt{Agent: s.agent(), Place: p, Wedge: true}, err
			}, places...),
		kind("freeze", "freeze its cgroup", func() Fault { return new(Freeze) },
			func(s subject, _ values) (Fault, error) { return &Freeze{Agent: s.agent()}, nil }),
		kind("out-of-memory", "have the kernel's OOM killer end it", func() Fault { return new(OutOfMemory) },
			func(s subject, _ values) (Fault, error) {
				return &OutOfMemory{Agent: s.agent(), Self: s.Self}, nil
			}),
		kind("descriptors", "leave it no free file descriptor", func() Fault { return new(Descriptors) },
			func(s subject, _ values) (Fault, error) { return &Descriptors{Agent: s.agent()}, nil }),
		kind("second-agent", "start another one beside it", func() Fault { return new(SecondAgent) },
			func(s subject, _ values) (Fault, error) { return &SecondAgent{Agent: s.agent()}, nil }),
	}
}

// place reads the parameters that name a moment of a call.
func place(v values, prefix string) (p Place, err error) {
	var errs [3]error
	p.Number, errs[0] = v.number(prefix + "number")
	p.Occurrence, errs[1] = v.number(prefix + "occurrence")
	when, err := v.choice(prefix+"when", "before", "after")
	errs[2] = err
	if when == "after" {
		p.When = supervisor.After
	}
	if call := v.text(prefix + "call"); call != "-" {
		p.Call = call
	} else if p.Number < 1 {
		errs[0] = errors.Join(errs[0], errors.New("give number=N, from 1, or call=TEXT"))
	}
	return p, errors.Join(errs[:]...)
}
