//go:build tools

// Package kserve pins the controller of InferenceServices.
package kserve

import _ "github.com/kserve/kserve/cmd/manager"
