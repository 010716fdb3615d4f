"""A real Kubernetes for the tests, on a plain machine and without Docker.

Two sizes: `controlplane.ControlPlane` (API server, etcd and optionally the controllers; no root, a few seconds) and
`cluster.up` (one node with a real kubelet and real images; needs Linux and root, or takes a cluster that exists).
"""
