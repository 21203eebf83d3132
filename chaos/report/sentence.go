// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/netsim"
)

// Conclude answers whether what, a release or the step from one to another, may be rolled out. scope says what part of
// the suites was run, empty for all of them.
func (r *Report) Conclude(what, scope string) {
	if scope != "" {
		if strings.Contains(scope, " ") {
			scope = "(" + scope + ")"
		}
		scope = " as far as " + scope + " goes"
	}
	total := r.Passed + r.Failed
	switch {
	case r.Failed > 0:
		r.Answer = No
		r.Sentence = fmt.Sprintf("No, %s may not be rolled out: %d of %s did not come true%s. The first: %s", what,
			r.Failed, plural(total, "expectation"), r.damage(), r.first())
	case r.Passed == 0:
		r.Answer = Unknown
		r.Sentence = fmt.Sprintf("Whether %s may be rolled out is not known: no spec ran. --list shows what there is to run.", what)
	case !r.subject():
		r.Answer = Unknown
		r.Sentence = fmt.Sprintf("Whether %s may be rolled out is not known: %s came true%s, but no spec ran it.", what,
			plural(total, "expectation"), r.proof())
	case r.Void > 0:
		r.Answer = Unknown
		r.Sentence = fmt.Sprintf("Whether %s may be rolled out is not known: in %s the machine was too slow to tell.", what,
			plural(r.Void, "run"))
	default:
		r.Answer = Yes
		r.Sentence = fmt.Sprintf("Yes, %s may be rolled out%s: %s came true%s.", what, scope, plural(total, "expectation"),
			r.proof())
	}
}

// subject reports whether a spec has passed whose labs ran what is to be rolled out, and not only what it is compared with.
func (r *Report) subject() bool {
	return slices.ContainsFunc(r.Specs, func(s Spec) bool {
		return s.State == Passed && s.Result != nil && s.Result.Dataplane == string(netsim.Evenkeel)
	})
}

// damage is what the flows say of it.
func (r *Report) damage() string {
	var parts []string
	for _, c := range []struct {
		n    int
		noun string
		did  string
	}{
		{r.Flows.Broken, "connection", "broke"}, {r.Flows.Stalled, "connection", "stalled"},
		{int(r.WrongVerdicts), "attempt", "went as it must not"}, {r.Leaks, "object", "leaked"},
	} {
		if c.n > 0 {
			parts = append(parts, plural(c.n, c.noun)+" "+c.did)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return ", " + list(parts)
}

// pointers are what Gomega says of an error in front of its text.
var pointers = regexp.MustCompile(`<\*[\w.]+ \| 0x[0-9a-f]+>:`)

// first names the first failure, and the beginning of why, as the end of a sentence.
func (r *Report) first() string {
	for _, s := range r.Specs {
		if s.State != Failed {
			continue
		}
		const most = 160
		why, _, _ := strings.Cut(s.Failure, "\n\n")
		why = strings.Join(strings.Fields(pointers.ReplaceAllString(why, "")), " ")
		end := "."
		if runes := []rune(why); len(runes) > most {
			why, end = string(runes[:most]), "…"
		}
		return strings.TrimSuffix(s.Group+" "+s.Name+": "+strings.TrimRight(why, ":. "), ": ") + end
	}
	return ""
}

// proof is what a yes rests on.
func (r *Report) proof() string {
	var parts []string
	if r.Flows.Intact > 0 {
		text := fmt.Sprintf("%s held (at worst %s late)", plural(r.Flows.Intact, "connection"), gap(r.WorstGap))
		if bad := r.Flows.Stalled + r.Flows.Broken; bad > 0 { // what a spec expected
			text = fmt.Sprintf("%s held and %d did not, as expected", plural(r.Flows.Intact, "connection"), bad)
		}
		parts = append(parts, text)
	}
	if n := r.Controls.Flows.Broken + r.Controls.Flows.Stalled; n > 0 {
		parts = append(parts, plural(n, "connection")+" of the controls did not, as must be")
	}
	if len(parts) == 0 {
		return ""
	}
	return ", " + list(parts)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// list joins parts: "a, b and c".
func list(parts []string) string {
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " and " + parts[len(parts)-1]
}
