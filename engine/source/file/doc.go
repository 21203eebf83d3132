// SPDX-License-Identifier: Apache-2.0

// Package file feeds an engine from manifests on disk: a file, or the files of a directory. It owns the watch on them
// and the decision when they are worth reading; what their objects mean is package source's.
//
// What it promises: a change is applied as a whole or not at all, and nothing is ever taken for deleted because it
// could not be read. While anything is wrong (a syntax error anywhere, a path that is gone, a file that was emptied)
// the last good state of the whole source stays, Status says what is wrong, and the log says it once. Objects go when
// their document is taken out of a file that still has content, when their file is removed from a directory that is
// still there, and in no other way.
package file
