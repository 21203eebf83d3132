// SPDX-License-Identifier: Apache-2.0

package report

import "github.com/evenkeel/evenkeel/engine"

// Services are those that the data plane serves, or should.
type Services struct {
	Version  string               `json:"version"`
	Services []engine.ServiceView `json:"services"`
}

// Endpoints are those in the kernel.
type Endpoints struct {
	Version   string                `json:"version"`
	Endpoints []engine.EndpointView `json:"endpoints"`
}

// Workloads are the pods of the node.
type Workloads struct {
	Version   string     `json:"version"`
	Workloads []Workload `json:"workloads"`
}

// Names are what numbers of the kernel stand for; keys are INDEX.INCARNATION. What is not there is gone. A service that
// no source has named has an empty name, and so has an endpoint that is no pod.
type Names struct {
	Version   string            `json:"version"`
	Services  map[string]string `json:"services"`
	Endpoints map[string]string `json:"endpoints"`
}

// NewNames returns names of nothing.
func NewNames() *Names {
	return &Names{Version: Version, Services: make(map[string]string), Endpoints: make(map[string]string)}
}

// Services lists the services.
func (v *View) Services() *Services { return &Services{Version, v.Engine.Services()} }

// Endpoints lists the endpoints.
func (v *View) Endpoints() *Endpoints { return &Endpoints{Version, v.Engine.Endpoints()} }

// WorkloadList lists the pods.
func (v *View) WorkloadList() (*Workloads, error) {
	all, err := v.Workloads()
	if err != nil {
		return nil, err
	}
	return &Workloads{Version, all}, nil
}
