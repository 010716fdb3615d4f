//go:build tools

// Package jobset pins the controller that runs trainings on several nodes.
package jobset

import _ "sigs.k8s.io/jobset"
