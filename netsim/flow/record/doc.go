// SPDX-License-Identifier: Apache-2.0

// Package record has what a run leaves behind and what can be concluded from it: NDJSON, one object {"TYPE":{…}} per
// line, and Judge, which reads any number of such files of one run and says which flows are intact, stalled or broken.
// Nothing but the lines counts, so a run can be judged again.
//
// All times and durations are nanoseconds; times are of CLOCK_MONOTONIC, which the processes in all namespaces of a
// machine share. Whatever else happens on the machine and carries such a time can be laid beside a recording.
package record
