//go:build tools

// Package rollouts pins the controller of Argo's Rollouts.
package rollouts

import _ "github.com/argoproj/argo-rollouts/cmd/rollouts-controller"
