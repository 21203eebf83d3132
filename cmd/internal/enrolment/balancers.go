// SPDX-License-Identifier: Apache-2.0

package enrolment

import (
	"fmt"
	"strings"

	"github.com/evenkeel/evenkeel/upgrade"
)

// balancers are programs known to replace the address of a service by that of an endpoint, by the beginning of their
// names, of which the kernel keeps 15 bytes. What they have replaced is no service for a program that runs after them.
var balancers = []struct{ begin, project string }{
	{"cil_sock4_", "Cilium's socket load balancer"}, // cilium: bpf/bpf_sock.c, since 1.12
	{"cil_sock6_", "Cilium's socket load balancer"},
	{"sock4_connect", "Cilium's socket load balancer"}, // before 1.12
	{"sock6_connect", "Cilium's socket load balancer"},
	{"sock4_sendmsg", "Cilium's socket load balancer"},
	{"sock6_sendmsg", "Cilium's socket load balancer"},
	{"calico_connect_", "Calico's connect-time load balancer"}, // calico: felix/bpf-gpl/connect_balancer*.c
	{"calico_sendmsg_", "Calico's connect-time load balancer"},
	{"cgroup_connect4", "Kmesh"}, // kmesh: bpf/kmesh/workload/cgroup_sock.c
	{"cgroup_connect6", "Kmesh"},
}

// BalancerName says of which project a program of that name is a load balancer, "" if it is none that is known.
func BalancerName(program string) string {
	for _, b := range balancers {
		if strings.HasPrefix(program, b.begin) {
			return b.project
		}
	}
	return ""
}

// Balancer names the first of others that chooses endpoints before this data plane is asked, "" if none does.
func Balancer(others []upgrade.Other) string {
	for _, o := range others {
		if project := BalancerName(o.Name); o.Before && project != "" {
			return fmt.Sprintf("%s (program %s, id %d, on %s of %s)", project, o.Name, o.Program, o.Hook, o.Cgroup)
		}
	}
	return ""
}
