"""Fixtures of the plugin's tests."""

from tests.operator.conftest import unused_port

__all__ = ["unused_port"]
