//go:build tools

// Package kwok pins KWOK, which plays nodes and pods where a benchmark needs thousands.
package kwok

import _ "sigs.k8s.io/kwok/cmd/kwok"
