"""Chaos: every fault that a cluster is known for, at every phase of an update's life (docs/reliability.md).

python -m tests.chaos --help
"""
