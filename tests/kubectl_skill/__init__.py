"""The kubectl plugin without a cluster; with one: tests/operator/api/test_kubectl_skill.py."""
