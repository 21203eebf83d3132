// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"strings"
	"testing"
)

const (
	serviceHead = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\nspec:\n"
	sliceHead   = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  namespace: shop\n"
	podHead     = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  namespace: shop\n"
)

// refused are documents and what is said about them.
var refused = []struct{ name, text, want string }{
	{"yaml syntax", "# one\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: \"web\n",
		"test.yaml:6: invalid YAML: found unexpected end of stream"},
	{"json syntax", "\n\n{\"apiVersion\": \"v1\",\n \"kind\": ]}",
		"test.yaml:4: invalid YAML: did not find expected node content"},
	{"no kind", "---\napiVersion: v1\nmetadata:\n  name: x\n",
		"test.yaml:2: a document needs apiVersion and kind, both strings"},
	{"a scalar", "hello\n", "test.yaml:1: a document must be a mapping, not the string \"hello\""},
	{"bad version", "apiVersion: a/b/c\nkind: Pod\n",
		"test.yaml:1: apiVersion: unexpected GroupVersion string: a/b/c"},
	{"unknown field", serviceHead + "  ports:\n  - port: 80\n    targetport: 81\n",
		"test.yaml:9: Service shop/web: spec.ports[0].targetport: unknown field, did you mean targetPort?"},
	{"duplicate key", serviceHead + "  clusterIP: 10.0.0.1\n  ports: []\n  clusterIP: 10.0.0.2\n",
		"test.yaml:9: Service shop/web: spec.clusterIP: the field is there twice"},
	{"duplicate label", podHead + "  labels:\n    a: b\n    a: c\n",
		"test.yaml:8: Pod shop/p: metadata.labels[a]: the key is there twice"},
	{"wrong type", serviceHead + "  ports:\n  - port: http\n",
		"test.yaml:8: Service shop/web: spec.ports[0].port: needs a whole number, not the string \"http\""},
	{"number as a string", podHead + "  labels:\n    version: 1.10\n",
		"test.yaml:7: Pod shop/p: metadata.labels[version]: needs a string, not the number 1.10: write it in quotes"},
	{"boolean word as a string", podHead + "  labels:\n    mesh: on\n",
		"test.yaml:7: Pod shop/p: metadata.labels[mesh]: needs a string, not the boolean on: write it in quotes"},
	{"overflow", serviceHead + "  ports:\n  - port: 80000000000\n",
		"test.yaml:8: Service shop/web: spec.ports[0].port: the number 80000000000 does not fit into 32 bits"},
	{"list for a mapping", serviceHead + "- a\n",
		"test.yaml:7: Service shop/web: spec: needs a mapping, not a list"},
	{"bad time", podHead + "  deletionTimestamp: soon\n",
		"test.yaml:6: Pod shop/p: metadata.deletionTimestamp: the string \"soon\" is not accepted: parsing time"},
	{"list inside a list", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items: []\n",
		"test.yaml:4: List item 0: a list cannot be inside a list"},
	{"list with an unknown field", "apiVersion: v1\nkind: List\nitems: []\nitem: 1\n",
		"test.yaml:4: List: item: unknown field"},
	{"items that are none", "apiVersion: v1\nkind: List\nitems: {}\n",
		"test.yaml:3: List: items: needs a list, not a mapping"},
	{"error in a list item", "apiVersion: v1\nkind: PodList\nitems:\n" +
		"- metadata:\n    name: ok\n- metadata:\n    name: p\n  spec: 1\n",
		"test.yaml:8: Pod p: spec: needs a mapping, not the number 1"},
	{"tag", podHead + "  labels:\n    a: !secret b\n",
		"test.yaml:7: the tag !secret means nothing in a Kubernetes document"},
	{"anchor in itself", "apiVersion: v1\nkind: Pod\nmetadata: &m\n  labels: *m\n",
		"test.yaml:4: the anchor contains itself"},
	{"missing name", "apiVersion: v1\nkind: Node\nmetadata:\n  labels: {}\n",
		"test.yaml:4: Node: metadata.name: is missing"},
	{"bad name", "apiVersion: v1\nkind: Node\nmetadata:\n  name: A_b\n",
		"test.yaml:4: Node A_b: metadata.name: \"A_b\": a lowercase RFC 1123"},
	{"bad namespace", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: b.c\n",
		"test.yaml:5: Pod b.c/a: metadata.namespace: \"b.c\": "},
	{"namespace where none is", "apiVersion: v1\nkind: Node\nmetadata:\n  name: a\n  namespace: b\n",
		"test.yaml:5: Node b/a: metadata.namespace: a Node is in no namespace: remove \"b\""},
	{"same key twice", podHead + "---\n" + podHead,
		"test.yaml:7: Pod shop/p: is already defined at test.yaml:1: remove or rename"},

	{"no ports", serviceHead + "  clusterIP: 10.0.0.1\n", "spec.ports: is missing"},
	{"port 0", serviceHead + "  ports:\n  - port: 0\n",
		"test.yaml:8: Service shop/web: spec.ports[0].port: port 0 is not between"},
	{"port 65536", serviceHead + "  ports:\n  - name: a\n    port: 65536\n",
		"test.yaml:9: Service shop/web: spec.ports[0].port: port 65536"},
	{"target port", serviceHead + "  ports:\n  - port: 1\n    targetPort: -1\n",
		":9: Service shop/web: spec.ports[0].targetPort: port -1"},
	{"target port name", serviceHead + "  ports:\n  - port: 1\n    targetPort: A_\n",
		":9: Service shop/web: spec.ports[0].targetPort: \"A_\""},
	{"protocol", serviceHead + "  ports:\n  - port: 1\n    protocol: tcp\n",
		`protocol: protocol "tcp" is not TCP, UDP or SCTP`},
	{"unnamed port beside another", serviceHead + "  ports:\n  - port: 1\n  - port: 2\n",
		":8: Service shop/web: spec.ports[0].name: is missing"},
	{"port name twice", serviceHead + "  ports:\n  - {port: 1, name: a}\n  - {port: 2, name: a}\n",
		`:9: Service shop/web: spec.ports[1].name: "a" is`},
	{"port twice", serviceHead + "  ports:\n  - {port: 1, name: a}\n  - {port: 1, name: b, protocol: TCP}\n",
		`:9: Service shop/web: spec.ports[1].port: 1/TCP is an earlier port`},
	{"cluster address", serviceHead + "  clusterIP: 10.0.0\n",
		`:7: Service shop/web: spec.clusterIP: "10.0.0" is not an IP address`},
	{"mapped address", serviceHead + "  clusterIP: ::ffff:10.0.0.1\n",
		`is an IPv4 address in IPv6 form: write 10.0.0.1`},
	{"two of a family", serviceHead + "  clusterIPs: [10.0.0.1, 10.0.0.2]\n",
		`spec.clusterIPs[1]: 10.0.0.2 is the second address of its family`},
	{"clusterIP against clusterIPs", serviceHead + "  clusterIP: 10.0.0.1\n  clusterIPs: [10.0.0.2]\n",
		`but the first of clusterIPs is 10.0.0.2`},
	{"None beside an address", serviceHead + "  clusterIPs: [None, 10.0.0.2]\n",
		`spec.clusterIPs[0]: "None" is not an IP address`},
	{"type", serviceHead + "  type: Cluster\n", `spec.type: type "Cluster" is not`},
	{"external name", serviceHead + "  type: ExternalName\n", `spec.externalName: is missing`},
	{"affinity", serviceHead + "  sessionAffinity: Cookie\n",
		`spec.sessionAffinity: "Cookie" is not None or ClientIP`},
	{"affinity time", serviceHead + "  sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}\n",
		`timeoutSeconds: 0 is not between 1 and 86400`},
	{"policy", serviceHead + "  internalTrafficPolicy: local\n", `"local" is not Cluster or Local`},
	{"distribution", serviceHead + "  trafficDistribution: Near\n", `"Near" is not PreferClose`},
	{"family", serviceHead + "  ipFamilies: [IPv5]\n", `spec.ipFamilies[0]: "IPv5" is not IPv4 or IPv6`},

	{"no address type", sliceHead, ":1: EndpointSlice shop/web-1: addressType: is missing"},
	{"address type", sliceHead + "addressType: IP\n", `addressType: "IP" is not IPv4, IPv6 or FQDN`},
	{"address of the other family", sliceHead + "addressType: IPv4\nendpoints:\n" +
		"- addresses: [\"10.0.0.1\"]\n- addresses:\n  - fd00::1\n",
		":10: EndpointSlice shop/web-1: endpoints[1].addresses[0]: fd00::1 is not of addressType IPv4"},
	{"zone in an address", sliceHead + "addressType: IPv6\nendpoints:\n- addresses: [\"fe80::1%eth0\"]\n",
		`has a zone`},
	{"no address", sliceHead + "addressType: IPv6\nendpoints:\n- addresses: []\n",
		`endpoints[0].addresses: 0 addresses`},
	{"slice port", sliceHead + "addressType: IPv6\nports:\n- port: 70000\n",
		`:8: EndpointSlice shop/web-1: ports[0].port: port 70000`},
	{"slice port twice", sliceHead + "addressType: IPv6\nports:\n- port: 1\n- port: 2\n",
		`ports[1].name: "" is the name of an earlier port`},
	{"slice node", sliceHead + "addressType: IPv6\nendpoints:\n- addresses: [\"fd00::1\"]\n  nodeName: A\n",
		`:9: EndpointSlice shop/web-1: endpoints[0].nodeName: "A"`},
	{"domain name", sliceHead + "addressType: FQDN\nendpoints:\n- addresses: [\"a b\"]\n",
		`endpoints[0].addresses[0]: "a b": a lowercase`},

	{"pod address", podHead + "status:\n  podIPs:\n  - ip: 10.0.0.256\n",
		`:8: Pod shop/p: status.podIPs[0].ip: "10.0.0.256" is not`},
	{"pod address not first", podHead + "status:\n  podIP: 10.0.0.2\n  podIPs:\n  - ip: 10.0.0.1\n",
		`the first of podIPs is 10.0.0.1`},
	{"pod address of loopback", podHead + "status:\n  podIP: 127.0.0.1\n", `"127.0.0.1" cannot be reached from another`},
	{"pod address of a link", podHead + "status:\n  podIP: fe80::1\n", `"fe80::1" cannot be reached from another`},
	{"pod address for everybody", podHead + "status:\n  podIP: 255.255.255.255\n",
		`"255.255.255.255" cannot be reached from another`},
	{"pod address of all", podHead + "status:\n  podIP: 0.0.0.0\n", `"0.0.0.0" is not the address of one host`},
	{"container port", podHead + "spec:\n  containers:\n  - name: a\n    ports:\n    - containerPort: 0\n",
		`:10: Pod shop/p: spec.containers[0].ports[0].containerPort: port 0`},
}

func TestDecodeRefuses(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			docs, skipped, err := Decode(strings.NewReader(tt.text), "test.yaml")
			var failure *Error
			if !errors.As(err, &failure) {
				t.Fatalf("error %v is no *Error", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error:\n got %s\nwant %s", err, tt.want)
			}
			if docs != nil || skipped != nil {
				t.Errorf("results beside the error: %v %v", docs, skipped)
			}
		})
	}
}

func TestSyntaxErrorsNameTheLine(t *testing.T) {
	tests := []struct {
		text string
		line int
	}{
		{"a: b\nc:\n  d: e\n  f g\n  h: i\n", 4},
		{"a: b\nc:\n  d: e\n f: g\n  h: i\n", 4},
		{"a: b\nc:\n  d: e\n\tf: g\n", 4},
		{"a: b\nc:\n  d: e: f\n", 3},
		{"a: b\nc:\n- x\n-y\n", 4},
		{"a: b\nc:\n- x\n z: 1\n", 4},
		{"a: b\nc: [1, 2\nd: e\n", 2},
		{"a: b\nc: \"\\q\"\nd: e\n", 2},
		{"a: b\nc: *x\nd: e\n", 2},
		{"a: b\n\nc: \x01\n", 3},
		{"a: b\nc: \xff\xfe\n", 2},
		{"a: b\n}\n", 2},
		{"}\n", 1},
	}
	for _, tt := range tests {
		_, _, err := Decode(strings.NewReader("---\n"+tt.text), "test.yaml")
		var failure *Error
		if !errors.As(err, &failure) || failure.Line != tt.line+1 ||
			!strings.HasPrefix(failure.Reason, "invalid YAML: ") {
			t.Errorf("%q: error %v, want line %d", tt.text, err, tt.line+1)
		}
	}
}
