// SPDX-License-Identifier: Apache-2.0

package enrol

import "fmt"

// Facts are what is known of a pod that decide whether it can be enrolled. The zero value is eligible.
type Facts struct {
	// HostNetwork: it shares the network namespace of its node.
	HostNetwork bool
	// Sidecar is the name of the proxy container that another mesh has put into it, empty for none.
	Sidecar string
	// OtherMesh is the name of the sidecarless mesh that owns it, empty for none.
	OtherMesh string
	// OtherBalancer names the programs on this node that choose endpoints before ours are asked, empty for none.
	OtherBalancer string
}

// Reason is why a pod is not enrolled, as programs read it. The values are stable.
type Reason string

// The reasons.
const (
	HostNetwork Reason = "host-network" // the pod shares the namespace of the node
	Sidecar     Reason = "sidecar"      // a proxy in the pod wants to see the address that was dialled
	OtherMesh   Reason = "other-mesh"   // another mesh governs the pod
	// OtherBalancer: what the pod dials is given an endpoint by another before the data plane sees it.
	OtherBalancer Reason = "other-balancer"
)

// RefusedError says that a pod cannot be a workload, by a rule and not by a mishap: trying again changes nothing. A pod
// that is refused is left untouched.
type RefusedError struct {
	Pod    string
	Reason Reason
	Detail string // a sentence for people
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("pod %s is not enrolled: %s", e.Pod, e.Detail)
}

// Decide returns a *RefusedError if the facts speak against enrolling the pod, else nil. What only the namespace itself
// can tell, [Enrol] finds out.
func Decide(pod string, f Facts) error {
	refuse := func(reason Reason, detail string) error { return &RefusedError{pod, reason, detail} }
	switch {
	case f.HostNetwork:
		return refuse(HostNetwork, "it uses the host network: its network namespace is the node's")
	case f.Sidecar != "":
		return refuse(Sidecar, fmt.Sprintf("its container %s is a proxy that has to see the address that was dialled; "+
			"remove the sidecar first", f.Sidecar))
	case f.OtherMesh != "":
		return refuse(OtherMesh, fmt.Sprintf("it belongs to %s; take it out of that mesh first", f.OtherMesh))
	case f.OtherBalancer != "":
		return refuse(OtherBalancer, fmt.Sprintf("%s chooses endpoints before this data plane is asked; switch that off "+
			"for this node first", f.OtherBalancer))
	}
	return nil
}
