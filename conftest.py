"""Fixtures of all rungs, and their order: cheap rungs first, so that a mistake shows in seconds, not in an hour."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is no defect: what takes long has pytest's timeout.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

pytest_plugins = ["tests.cluster.fixtures", "tests.seaweedfs", "tests.smollm2", "tests.e2e.fixtures"]

_RUNGS = ("alerts", "gitops", "api", "store", "trainer", "e2e")


def _rung(item: pytest.Item) -> int:
    return max((_RUNGS.index(mark.name) + 1 for mark in item.iter_markers() if mark.name in _RUNGS), default=0)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the random order inside a rung and runs the rungs one after the other."""
    items.sort(key=_rung)
