// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"

	"github.com/evenkeel/evenkeel/netsim/fault/wire"
)

// wireKinds are the faults of what connects nodes. The first node that a target names sends what is spoiled one way.
func wireKinds() []Kind {
	kind := func(name, summary string, build func(values) (wire.Impairment, error), params ...Param) Kind {
		return Kind{Name: name, Group: "wire", Target: "wire", Summary: summary, zero: func() Fault { return new(Wire) },
			Params: append(params, Param{"ways", "both", "both, or one: only what the first node sends"}),
			build: func(s subject, v values) (Fault, error) {
				i, err := build(v)
				i.Seed = v.seed
				ways, wayErr := v.choice("ways", "both", "one")
				far := wire.End{Netns: s.other().Netns, Link: s.wire.Link}
				near := wire.End{Netns: s.node.Netns, Link: s.wire.Link}
				ends := []wire.End{far, near}
				if ways == "one" {
					ends = ends[:1]
				}
				return &Wire{Name: "wire/" + s.node.Name + "," + s.other().Name, Self: s.Self,
					Config: wire.Config{Ends: ends, Impairment: i}}, errors.Join(err, wayErr)
			}}
	}
	return []Kind{
		kind("partition", "drop every packet", func(values) (wire.Impairment, error) {
			return wire.Impairment{Drop: wire.DropAll}, nil
		}),
		kind("half-partition", "drop the packets of half of all flows", func(values) (wire.Impairment, error) {
			return wire.Impairment{Drop: wire.DropHalf}, nil
		}),
		kind("flapping", "drop every packet now and then", func(v values) (wire.Impairment, error) {
			period, err := v.duration("period")
			down, downErr := v.duration("down")
			return wire.Impairment{Drop: wire.DropAll, Period: period, Down: down}, errors.Join(err, downErr)
		}, Param{"period", "200ms", "how often"}, Param{"down", "50ms", "for how long each time"}),
		kind("loss", "lose packets at random", func(v values) (wire.Impairment, error) {
			loss, err := v.share("share")
			return wire.Impairment{Loss: loss}, err
		}, Param{"share", "1%", "of all packets"}),
		kind("delay", "let packets take longer", func(v values) (wire.Impairment, error) {
			delay, err := v.duration("delay")
			jitter, jitterErr := v.duration("jitter")
			return wire.Impairment{Delay: delay, Jitter: jitter}, errors.Join(err, jitterErr)
		}, Param{"delay", "20ms", "each way"}, Param{"jitter", "0s", "that much more at most, drawn for each"}),
	}
}
