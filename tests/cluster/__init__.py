"""A real Kubernetes for the tests, on a plain machine and without Docker.

Two sizes: `controlplane.ControlPlane` (API server, etcd and controllers; no root, a few seconds), and `up` (one node
with a real kubelet and real images; needs Linux and root). `connect` takes a cluster that exists instead.
"""

from tests.cluster.cluster import Cluster, connect, down, engine, is_up, up
from tests.cluster.console import ClusterError

__all__ = ["Cluster", "ClusterError", "connect", "down", "engine", "is_up", "up"]
