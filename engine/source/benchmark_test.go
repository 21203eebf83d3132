// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// cluster fills a State with n services, each with 10 pods and, where slices are not derived, one slice of them.
func cluster(n int, derive bool) *State {
	s := New(Options{Derive: derive})
	for i := range n {
		name, high, low := fmt.Sprint("svc-", i), i>>8&255, i&255
		app := map[string]string{"app": name, "part-of": "bench"}
		s.Upsert(testService(name, fmt.Sprintf("10.96.%d.%d", high, low), app), "x")
		var endpoints []discoveryv1.Endpoint
		for j := range 10 {
			pod := testPod(fmt.Sprint(name, "-", j), fmt.Sprintf("10.%d.%d.%d", j, high, low), app)
			pod.Spec.NodeName = fmt.Sprint("node-", j)
			s.Upsert(pod, "x")
			endpoints = append(endpoints, discoveryv1.Endpoint{
				Addresses: []string{pod.Status.PodIPs[0].IP},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod.Name},
				NodeName:  &pod.Spec.NodeName,
			})
		}
		if !derive {
			s.Upsert(testSlice(name, endpoints...), "x")
		}
	}
	return s
}

// BenchmarkFirstChange is what a start costs with 10,000 services and 100,000 pods.
func BenchmarkFirstChange(b *testing.B) {
	for _, derive := range []bool{false, true} {
		b.Run(fmt.Sprint("derive=", derive), func(b *testing.B) {
			for b.Loop() {
				s := cluster(10_000, derive)
				if c := s.Change(); len(c.Slices) != 10_000 {
					b.Fatal(len(c.Slices))
				}
				s.Commit()
			}
		})
	}
}

// BenchmarkOnePod is what a pod that changes costs there.
func BenchmarkOnePod(b *testing.B) {
	s := cluster(10_000, true)
	s.Change()
	s.Commit()
	pod := testPod("svc-7-3", "10.3.0.7", map[string]string{"app": "svc-7", "part-of": "bench"})
	for i := 0; b.Loop(); i++ {
		pod.Spec.NodeName = fmt.Sprint("node-", i%10)
		s.Upsert(pod, "x")
		s.Change()
		s.Commit()
	}
}
