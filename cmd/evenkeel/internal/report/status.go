// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Status is all there is to know of a data plane and its agent.
type Status struct {
	Version string `json:"version"`
	// Healthy is whether Problems is empty. A problem is a sentence on something that somebody has to do something
	// about.
	Healthy  bool     `json:"healthy"`
	Problems []string `json:"problems"`
	// Warnings are sentences on what works, but is hardly meant.
	Warnings []string `json:"warnings"`
	Dir      string   `json:"pinDirectory"`
	Agent    Agent    `json:"agent"`
	Word     Word     `json:"word"`
	// Differs is set if the programs that serve are of another release than the agent is.
	Differs     bool             `json:"differs,omitempty"`
	Hooks       []Hook           `json:"hooks"`
	Generations []Generation     `json:"generations"`
	Maps        []engine.MapFill `json:"maps"`
	Sources     []Source         `json:"sources"`
	// Engine counts what the agent did since it started; absent without an agent.
	Engine    *engine.Stats `json:"engine,omitempty"`
	Workloads []Workload    `json:"workloads"`
	// Others are programs of others that run where ours do.
	Others []upgrade.Other `json:"others"`
	// Damages are what is wrong with the pins.
	Damages []upgrade.Damage `json:"damages"`
	// Steps are the last changes of the pinned state, oldest first.
	Steps []upgrade.StepState `json:"steps"`
}

// Agent is the process that owns the data plane.
type Agent struct {
	// Running is whether a process holds the lease; Answers whether it has given this document itself.
	Running bool   `json:"running"`
	Answers bool   `json:"answers"`
	PID     int    `json:"pid,omitempty"`
	Command string `json:"command,omitempty"`
	// The rest is empty unless Answers.
	Since   time.Time `json:"since,omitzero"`
	Release string    `json:"release,omitempty"`
	Node    string    `json:"node,omitempty"`
	// Ready: everything is attached, and everything that the sources have was applied. NotReady says what is not.
	Ready    bool     `json:"ready"`
	NotReady []string `json:"notReady"`
	// Epoch of the agent; another one in Word says that this agent was replaced.
	Epoch uint16 `json:"epoch,omitempty"`
}

// Word says which generation serves; see docs/design/pinned-state.md.
type Word struct {
	Epoch  uint16 `json:"epoch"`
	Floor  uint16 `json:"floor"`
	Serve  uint16 `json:"serve"`
	Canary uint16 `json:"canary"` // 0: none
	Share  uint16 `json:"share"`  // of 4096 new connections that the canary gets
	Last   uint16 `json:"last"`   // highest number ever given to a generation
	Phase  string `json:"phase"`
}

// WordOf is the word of what was seen of the pins.
func WordOf(s *upgrade.State) Word {
	return Word{s.Epoch, s.Floor, s.Serve, s.Canary, s.Share, s.Last, s.Phase}
}

// Hook is a place in the kernel with what is attached there. Misses counts how often its slot was found empty.
type Hook struct {
	upgrade.HookState
	Misses uint64 `json:"misses"`
}

// Generation is a loaded set of programs. Counters are by name, over all CPUs; see docs/CLI.md.
type Generation struct {
	upgrade.GenerationState
	Counters map[string]uint64 `json:"counters"`
}

// Source is one source of services and endpoints.
type Source struct {
	Name string `json:"name"`
	Path string `json:"path,omitempty"`
	// Synced is whether all that it has was applied once; Read when it was last found to be good.
	Synced bool      `json:"synced"`
	Read   time.Time `json:"read,omitzero"`
	// Objects are counted by kind, Skipped are those of kinds that are not read.
	Objects  map[string]int `json:"objects"`
	Skipped  map[string]int `json:"skipped"`
	Warnings []string       `json:"warnings"`
	// Error is why what it says now is not in effect, Since when that was first seen.
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Collect makes the status of a data plane. A view may be nil if none could be opened: then it shows what can be seen
// of the pins. It returns upgrade.ErrNotInstalled if there is nothing.
func Collect(dir string, v *View) (*Status, error) {
	state, err := upgrade.Inspect(dir)
	if err != nil {
		return nil, err
	}
	s := &Status{
		Version: Version, Dir: dir, Others: state.Others, Damages: state.Damages, Steps: state.Steps,
		Word: WordOf(state),
	}
	if state.Holder != nil {
		s.Agent = Agent{Running: true, PID: state.Holder.PID, Command: state.Holder.Command}
	}
	s.pinned(state)
	if balancer := enrolment.Balancer(state.Others); balancer != "" {
		s.problem("%s chooses endpoints before this data plane is asked: switch that off for this node", balancer)
	}
	s.Warnings = append(s.Warnings, strangers(state.Others)...)
	s.agent(v)
	if v != nil {
		s.view(v)
	}
	s.Healthy = len(s.Problems) == 0
	return s, nil
}

// strangers warns of programs that run before ours where endpoints are chosen, and of which nothing else is known.
func strangers(others []upgrade.Other) (warnings []string) {
	for _, o := range others {
		chooses := strings.HasPrefix(o.Hook, "connect") || strings.HasPrefix(o.Hook, "sendmsg")
		if !o.Before || !chooses || enrolment.BalancerName(o.Name) != "" {
			continue
		}
		warnings = append(warnings, fmt.Sprintf("program %s (id %d) of others runs on %s of %s before this data plane is asked: if "+
			"it replaces the addresses of services, these are not governed", cmp.Or(o.Name, "?"), o.Program, o.Hook, o.Cgroup))
	}
	return warnings
}

func (s *Status) problem(format string, args ...any) {
	s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
}

// pinned adds what can be seen of the pins.
func (s *Status) pinned(state *upgrade.State) {
	for _, d := range state.Damages {
		s.problem("%s", d)
	}
	if state.Serve == 0 {
		s.problem("no generation serves: start the agent, which completes what was begun")
	}
	misses, err := byID(state.Maps, "misses", plane.Misses)
	if err != nil {
		s.problem("%v", err)
	}
	live := make(map[uint16]bool)
	for _, g := range state.Generations {
		live[g.Number] = g.Live
		counters, err := byID(g.Maps, "counters", plane.Counters)
		if err != nil {
			s.problem("generation %d: %v", g.Number, err)
		}
		s.Generations = append(s.Generations, Generation{g, counters})
	}
	for _, h := range state.Hooks {
		s.Hooks = append(s.Hooks, Hook{h, misses[h.Name]})
		if !h.OK && len(state.Damages) == 0 {
			s.problem("hook %s is not attached: restart the agent, which attaches it again", h.Name)
		}
	}
}

// byID reads one of a list of maps.
func byID[T any](all []upgrade.MapState, name string, read func(*ebpf.Map) (T, error)) (T, error) {
	var none T
	for _, state := range all {
		if state.Name != name {
			continue
		}
		m, err := ebpf.NewMapFromID(state.ID)
		if err != nil {
			return none, fmt.Errorf("open map %s: %w", name, err)
		}
		defer m.Close()
		return read(m)
	}
	return none, fmt.Errorf("map %s is not pinned any more", name)
}

// agent adds what the agent says of itself, or that it says nothing.
func (s *Status) agent(v *View) {
	switch {
	case v != nil && v.Agent != nil:
		said, sources := v.Agent()
		said.Running, said.Answers, said.PID, said.Command = true, true, s.Agent.PID, s.Agent.Command
		s.Agent, s.Sources, s.Differs = said, sources, v.Differs
		for _, why := range said.NotReady {
			s.problem("the agent is not ready: %s", why)
		}
		for _, source := range sources {
			if source.Error != "" {
				s.problem("source %s: %s; what was good before stays in effect", source.Name, source.Error)
			}
		}
		if v.Untold != nil {
			if err := v.Untold(); err != nil {
				s.problem("pods that start are enrolled late, or by what was decided before: %v", err)
			}
		}
		stats := v.Engine.Stats()
		s.Engine = &stats
		s.Warnings = append(s.Warnings, v.Engine.Warnings()...)
	case s.Agent.Running:
		s.problem("the agent (pid %d) does not answer: traffic goes on as it was when it last did; "+
			"look at its log, restart it with --take-over", s.Agent.PID)
	default:
		s.problem("no agent is running: traffic goes on as it was when the last one ended; start it to apply changes")
	}
}

// view adds what is read through maps.
func (s *Status) view(v *View) {
	fill, err := v.Engine.Fill()
	if err != nil {
		s.problem("%v", err)
	}
	s.Maps = fill
	workloads, err := v.Workloads()
	if err != nil {
		s.problem("%v", err)
	}
	s.Workloads = workloads
	for _, w := range workloads {
		if w.Code == "outside" {
			s.problem("pod %s is outside the mesh: %s", w.Name, w.Reason)
		}
		if w.Enrolled && w.Code != "" {
			s.problem("workload %s (namespace %s, cookie %d): %s", cmp.Or(w.Name, "?"), cmp.Or(w.Netns, "?"), w.Cookie, w.Reason)
		}
	}
	if s.Engine != nil && s.Engine.Pending > 0 {
		s.pending(v.Engine.Services())
	}
}

// shownServices is how many services that are not as they should be are named one by one.
const shownServices = 20

func (s *Status) pending(services []engine.ServiceView) {
	more := 0
	for _, service := range services {
		switch {
		case len(service.Problems) == 0:
		case more >= shownServices:
			more++
		default:
			more++
			s.problem("%s", service.Problems[0])
		}
	}
	if more > shownServices {
		s.problem("and %d more services are not as they should be: evenkeel dump services", more-shownServices)
	}
}
