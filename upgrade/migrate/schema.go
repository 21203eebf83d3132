// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"fmt"
	"regexp"
	"strconv"
)

var schemaForm = regexp.MustCompile(`^(.+)_v([2-9]|[1-9][0-9]+)$`)

// Schema splits the name of a map into what it is and the number of its layout: peers is schema 1 of peers, peers_v2
// schema 2.
func Schema(name string) (base string, number int) {
	m := schemaForm.FindStringSubmatch(name)
	if m == nil {
		return name, 1
	}
	number, err := strconv.Atoi(m[2])
	if err != nil {
		return name, 1
	}
	return m[1], number
}

// Name is the reverse of [Schema].
func Name(base string, number int) string {
	if number == 1 {
		return base
	}
	return fmt.Sprintf("%s_v%d", base, number)
}
