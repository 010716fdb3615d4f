//go:build tools

// Package kueue pins the controller that makes trainings wait for quota.
package kueue

import _ "sigs.k8s.io/kueue/cmd/kueue"
