//go:build tools

// Package s5cmd pins the S3 client that benchmarks/store.py measures against.
package s5cmd

import _ "github.com/peak/s5cmd/v2"
