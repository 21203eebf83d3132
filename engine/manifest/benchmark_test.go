// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"fmt"
	"testing"
)

// cluster writes n Services and n EndpointSlices of 10 endpoints each, in kubectl's style.
func cluster(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		high, low := i>>8&255, i&255
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata:
  name: svc-%d
  namespace: bench
spec:
  clusterIP: 10.0.%d.%d
  clusterIPs: ["10.0.%d.%d"]
  ports:
  - name: http
    port: 80
    protocol: TCP
    targetPort: 8080
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: svc-%d-abcde
  namespace: bench
  labels:
    kubernetes.io/service-name: svc-%d
addressType: IPv4
ports:
- name: http
  port: 8080
  protocol: TCP
endpoints:
`, i, high, low, high, low, i, i)
		for j := range 10 {
			fmt.Fprintf(&b, `- addresses:
  - 10.1%d.%d.%d
  conditions:
    ready: true
    serving: true
    terminating: false
  nodeName: node-%d
  zone: zone-a
  targetRef:
    kind: Pod
    name: svc-%d-%d
    namespace: bench
`, j, high, low, j, i, j)
		}
	}
	return b.Bytes()
}

// BenchmarkDecode is 10,000 Services with 10,000 EndpointSlices of 10 endpoints: 25 MB.
func BenchmarkDecode(b *testing.B) {
	text := cluster(10_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		docs, _, err := Decode(bytes.NewReader(text), "bench.yaml")
		if err != nil || len(docs) != 20_000 {
			b.Fatal(len(docs), err)
		}
	}
}

// BenchmarkReaders compares what reads the text alone, on the same documents.
func BenchmarkReaders(b *testing.B) {
	chunks := split(b, string(cluster(1000)))
	b.Run("block", func(b *testing.B) {
		for b.Loop() {
			for _, c := range chunks {
				if _, _, ok := readBlock(c.text, c.line, MaxValues); !ok {
					b.Fatal("the block reader refused", c.text)
				}
			}
		}
	})
	b.Run("yaml", func(b *testing.B) {
		for b.Loop() {
			for _, c := range chunks {
				if _, err := readYAML(c.text, c.line, MaxValues); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
