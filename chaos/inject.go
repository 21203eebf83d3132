// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// faultLimit is when the dead man heals what a spec has forgotten.
const faultLimit = 3 * time.Minute

// environment is where the faults of a lab are injected.
func environment(lab *netsim.Lab) fault.Environment {
	return fault.Environment{Lab: lab, Binary: evenkeel(), Self: faultProcess()}
}

// faultProcess leads to the processes that faults need.
func faultProcess() []string { return []string{instrument(), "fault", "process"} }

// parseFault reads a fault as evenkeel-chaos fault inject takes it.
func parseFault(text string) fault.Spec {
	GinkgoHelper()
	spec, err := fault.ParseSpec(text)
	Expect(err).NotTo(HaveOccurred())
	return spec
}

// injected is a fault that has been injected in the course of a run.
type injected struct {
	*fault.Injection
	entry *result.Fault
}

// inject injects a fault that the registry knows. It is healed by heal; should the spec not come to that, at its end.
func (r *run) inject(ctx SpecContext, lab *netsim.Lab, text string) *injected {
	GinkgoHelper()
	i, err := r.tryInject(ctx, environment(lab), parseFault(text))
	Expect(err).NotTo(HaveOccurred())
	return i
}

// tryInject is inject for those who want to see the error. The fault is in the run's report in any case.
func (r *run) tryInject(ctx SpecContext, env fault.Environment, spec fault.Spec) (*injected, error) {
	GinkgoHelper()
	kind, err := fault.Lookup(spec.Fault)
	Expect(err).NotTo(HaveOccurred())
	i := &injected{entry: &result.Fault{Spec: spec.String(), Name: kind.Name, Group: kind.Group, Start: record.Now()}}
	r.Faults = append(r.Faults, i.entry)
	f, err := env.Build(spec)
	if err != nil {
		i.entry.Error = err.Error()
		return i, err
	}
	register := func(heal func(context.Context) error) {
		DeferCleanup(func(ctx SpecContext) { Expect(heal(ctx)).To(Succeed()) })
	}
	i.Injection, err = fault.Options{Self: env.Self, Limit: faultLimit, Observe: i.observe}.Inject(ctx, register, f)
	return i, err
}

// observe notes when what happened, and how often the fault has bitten.
func (i *injected) observe(e fault.Event) {
	switch e.What {
	case "inject":
		i.entry.Start = record.Now()
	case "injected":
		i.entry.Injected = record.Now()
	case "heal":
		i.entry.Heal, i.entry.Active = record.Now(), e.Active
	case "healed":
		i.entry.End = record.Now()
	}
	if e.Error != "" {
		i.entry.Error = e.Error
	}
}

// heal undoes the fault, and fails the spec if the fault has not bitten.
func (i *injected) heal(ctx SpecContext) {
	GinkgoHelper()
	Expect(i.Heal(ctx)).To(Succeed())
}

// witness counts the frames that flows were answered while a fault was there. Without any, nothing was shown.
func (r *run) witness() {
	GinkgoHelper()
	total := map[*result.Fault]uint64{}
	for _, path := range r.files {
		Expect(record.ReadFile(path, func(line any) error {
			w, is := line.(*record.Window)
			for _, f := range r.Faults {
				if is && w.To > f.Start && w.From < f.End {
					total[f] += w.Received
				}
			}
			return nil
		})).To(Succeed())
	}
	for _, f := range r.Faults {
		Expect(f.Active).To(BeNumerically(">", 0), "%s has not bitten", f.Spec)
		Expect(total[f]).To(BeNumerically(">", 0), "no frame was answered while there was %s", f.Spec)
		f.Frames = total[f]
	}
}
