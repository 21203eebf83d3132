// SPDX-License-Identifier: Apache-2.0

package fault

// bpfKinds are the faults of what an agent has in the kernel, and of the kernel that it meets.
func bpfKinds() []Kind {
	refuse := func(s subject, v values) (Fault, error) {
		errno, err := v.errno("errno")
		return &Refuse{Agent: s.agent(), Call: v.text("call"), Errno: errno}, err
	}
	zero := func() Fault { return new(Refuse) }
	return []Kind{
		{Name: "verifier-refusal", Group: "bpf", Target: "agent", zero: zero, build: refuse,
			Summary: "start it again where the verifier rejects its programs", Params: []Param{
				{"call", "bpf PROG_LOAD CGroupSockAddr mesh_connect4", "beginning of the calls that are refused"},
				{"errno", "EACCES", "with what"}}},
		{Name: "missing-feature", Group: "bpf", Target: "agent", zero: zero, build: refuse,
			Summary: "start it again on a kernel that lacks something", Params: []Param{
				{"call", "bpf LINK_CREATE", "beginning of the calls that are refused"},
				{"errno", "EINVAL", "with what: an unknown command is EINVAL, an unknown system call ENOSYS"}}},
	}
}
