// SPDX-License-Identifier: Apache-2.0

package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package bpf -type address -type service -type service_key -type service_level -type service_flag -type endpoint -type workload -type workload_key -type workload_by -type workload_flag -type workload_name -type flow -type flow_flag -type flow_record -type peer -type peer_key -type peer_direction -type affinity -type affinity_key -type count -type hook -type configuration -type control -type publication -type publish_what -type publish_error -type publish_request -type flow_layout Mesh mesh.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function
