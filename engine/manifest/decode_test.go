// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

// summary is "Kind ns/name @line" of every document, then of every skipped one.
func summary(docs []Document, skipped []Skipped) []string {
	var out []string
	for _, d := range docs {
		out = append(out, fmt.Sprintf("%s @%d", d.Key(), d.Line))
	}
	for _, s := range skipped {
		key := Key{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}
		out = append(out, fmt.Sprintf("skipped %s %s @%d", s.GroupVersion(), key, s.Line))
	}
	return out
}

func mustDecode(t *testing.T, text string) []Document {
	t.Helper()
	docs, _, err := Decode(strings.NewReader(text), "test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// found are streams and the documents that are in them.
var found = []struct {
	name, text string
	want       []string
}{
	{"nothing", "", nil},
	{"comments only", "# nothing\n---\n# here\n---\n...\n", nil},
	{"null", "---\nnull\n---\n~\n", nil},
	{"two, the second without namespace", `# head
---
# about the first
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec:
  ports: [{port: 80}]
--- # the second
apiVersion: v1
kind: Pod
metadata:
  name: p
`, []string{"Service shop/a @4", "Pod default/p @10"}},
	{"windows line ends and a byte order mark", "\ufeffapiVersion: v1\r\n" +
		"kind: Namespace\r\nmetadata:\r\n  name: n\r\n---\r\n" +
		"apiVersion: v1\r\nkind: Node\r\nmetadata:\r\n  name: m\r\n", []string{"Namespace n @1", "Node m @6"}},
	{"directive", "%YAML 1.1\n---\napiVersion: v1\nkind: Node\nmetadata:\n  name: m\n", []string{"Node m @3"}},
	{"document end, then the next without marker", "kind: Node\napiVersion: v1\nmetadata: {name: m}\n...\n" +
		"kind: Node\napiVersion: v1\nmetadata: {name: k}\n", []string{"Node m @1", "Node k @5"}},
	{"list", `apiVersion: v1
kind: List
metadata:
  resourceVersion: ""
items:
- apiVersion: v1
  kind: Node
  metadata:
    name: a
- apiVersion: apps/v1
  kind: Deployment
  metadata:
    name: d
    namespace: x
    namespace: y
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata:
    name: s
  addressType: IPv6
  endpoints: []
  ports: []
`, []string{"Node a @6", "EndpointSlice default/s @16", "skipped apps/v1 Deployment x/d @10"}},
	{"typed list, items without kind", "apiVersion: v1\nkind: PodList\nitems:\n- metadata:\n" +
		"    name: p\n- metadata:\n    name: q\n",
		[]string{"Pod default/p @4", "Pod default/q @6"}},
	{"empty list", "apiVersion: v1\nkind: PodList\nitems:\n", nil},
	{"list of a kind that is not read", "apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: c}\n",
		[]string{"skipped v1 ConfigMap c @4"}},
	{"an older version is another kind", "apiVersion: discovery.k8s.io/v1beta1\n" +
		"kind: EndpointSlice\nmetadata: {name: s}\n",
		[]string{"skipped discovery.k8s.io/v1beta1 EndpointSlice s @1"}},
	{"json, several values", "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"a\"}}\n\n" +
		"{\n\t\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"b\"}}\n---\n" +
		"{\"apiVersion\":\"v1\",\n\"kind\":\"Pod\"," +
		"\"metadata\":{\"name\":\"c\"}}", []string{"Node a @1", "Node b @3", "Pod default/c @6"}},
	{"flow style that is not json", "{apiVersion: v1, kind: Node, metadata: {name: a}}\n", []string{"Node a @1"}},
	{"anchors and merge", `apiVersion: v1
kind: Pod
metadata:
  name: p
  labels: &labels
    app: web
  annotations:
    <<: *labels
    more: "1"
`, []string{"Pod default/p @1"}},
}

func TestDecodeFindsDocuments(t *testing.T) {
	for _, tt := range found {
		t.Run(tt.name, func(t *testing.T) {
			docs, skipped, err := Decode(strings.NewReader(tt.text), "test.yaml")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, summary(docs, skipped)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// richPod has one field of every sort that a type can have.
const richPod = `
apiVersion: v1
kind: Pod
metadata:
  name: p
  creationTimestamp: 2026-01-02T03:04:05Z
  deletionTimestamp: "2026-01-02T03:05:05Z"
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {"apiVersion":"v1",
       "kind":"Pod"}

    quoted: "a \"b\"\t\\c"
  managedFields:
  - manager: kubectl
    operation: Apply
    fieldsV1:
      f:metadata:
        f:labels: {}
spec:
  hostNetwork: yes
  containers:
  - name: web
    image: registry:5000/web
    resources:
      limits:
        cpu: 1.5
        memory: 64Mi
    livenessProbe:
      httpGet: {path: /, port: http}
    ports:
    - {containerPort: 8080, name: http}
  terminationGracePeriodSeconds: 0x1e
status:
  phase: Running
  podIPs:
  - ip: 10.0.0.1
  - ip: fd00::1
`

func TestDecodeFillsTypes(t *testing.T) {
	docs := mustDecode(t, richPod)
	p := docs[0].Object.(*corev1.Pod)
	text := p.Annotations["kubectl.kubernetes.io/last-applied-configuration"]
	if want := "{\"apiVersion\":\"v1\",\n \"kind\":\"Pod\"}\n"; text != want {
		t.Errorf("literal = %q, want %q", text, want)
	}
	if got, want := p.Annotations["quoted"], "a \"b\"\t\\c"; got != want {
		t.Errorf("quoted = %q, want %q", got, want)
	}
	c := p.Spec.Containers[0]
	if cpu := c.Resources.Limits[corev1.ResourceCPU]; cpu.MilliValue() != 1500 {
		t.Errorf("cpu = %v", cpu)
	}
	if got := string(p.ManagedFields[0].FieldsV1.GetRawString()); got != `{"f:metadata":{"f:labels":{}}}` {
		t.Errorf("fieldsV1 = %s", got)
	}
	if p.DeletionTimestamp == nil || !p.Spec.HostNetwork || *p.Spec.TerminationGracePeriodSeconds != 30 ||
		p.CreationTimestamp.Second() != 5 ||
		c.LivenessProbe.HTTPGet.Port.StrVal != "http" || c.Ports[0].ContainerPort != 8080 {
		t.Errorf("pod = %+v", p)
	}
	if got := KeyOf(p); got != (Key{Kind: KindPod, Namespace: "default", Name: "p"}) {
		t.Errorf("key = %v", got)
	}
}

// TestObjectsDoNotKeepTheText holds that what is decoded has copies of its strings, each once: objects outlive the
// text of their file by far.
func TestObjectsDoNotKeepTheText(t *testing.T) {
	text := string(cluster(2))
	docs, _, err := decode(strings.NewReader(text), "test.yaml", usual)
	if err != nil {
		t.Fatal(err)
	}
	first := docs[1].Object.(*discoveryv1.EndpointSlice).Endpoints[3].NodeName
	second := docs[3].Object.(*discoveryv1.EndpointSlice).Endpoints[3].NodeName
	if *first != "node-3" || unsafe.StringData(*first) != unsafe.StringData(*second) {
		t.Errorf("%q and %q are not one string", *first, *second)
	}
	start, at := uintptr(unsafe.Pointer(unsafe.StringData(text))), uintptr(unsafe.Pointer(unsafe.StringData(*first)))
	if at >= start && at < start+uintptr(len(text)) {
		t.Error("the string is a part of the text")
	}
}

// TestDecodeAgreesWithKubernetes compares with the decoder that Kubernetes' own tools use, on the same text as YAML
// and as JSON.
func TestDecodeAgreesWithKubernetes(t *testing.T) {
	for _, c := range append(split(t, string(cluster(3))), chunk{text: richPod}) {
		var kind metav1.TypeMeta
		if err := sigsyaml.Unmarshal([]byte(c.text), &kind); err != nil {
			t.Fatal(err)
		}
		want := newObject(kind.GroupVersionKind())
		if err := sigsyaml.UnmarshalStrict([]byte(c.text), want); err != nil {
			t.Fatal(err)
		}
		if want.GetNamespace() == "" {
			want.SetNamespace("default")
		}
		asJSON, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		indented, err := json.MarshalIndent(want, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		for how, text := range map[string]string{
			"yaml": c.text, "json": string(asJSON), "indented json": string(indented)} {
			got := mustDecode(t, text)[0].Object
			if !equality.Semantic.DeepEqual(want, got) {
				t.Errorf("%s: kubernetes - here +\n%s", how, cmp.Diff(want, got))
			}
		}
	}
}

// TestDocumentedExample keeps the example of the documentation true.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/MANIFESTS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(text), "```yaml\n")
	example, _, closed := strings.Cut(example, "```")
	if !found || !closed {
		t.Fatal("there is no example")
	}
	if docs := mustDecode(t, example); len(docs) != 2 {
		t.Errorf("%d documents, want 2", len(docs))
	}
}
