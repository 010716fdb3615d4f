"""pytest fixtures on real Kubernetes, for `pytest_plugins` of the root conftest."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.cluster import debian, images
from tests.cluster.binaries import CATALOGUE, binary, built
from tests.cluster.console import ClusterError
from tests.cluster.controlplane import PROCESSES, ControlPlane

_NOT_OF_THE_CLUSTER = {"kwok", "lws", "argo-rollouts", "kserve-controller", "argocd", "flux"}
"""Modules for a benchmark, for other targets, and for the tests that are marked with gitops."""


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane with controllers for the whole session: a real API, real garbage collection, no node."""
    with ControlPlane(controllers=True) as plane:
        yield plane


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs that the collected tests need before the first starts: in no test's time, and to be seen.

    Images, needed last, are built meanwhile. A machine that cannot build hears so from the tests that need it.
    """
    if session.config.option.collectonly:
        return
    rungs = {mark.name for item in session.items for mark in item.iter_markers()}
    fixtures = {name for item in session.items if isinstance(item, pytest.Function) for name in item.fixturenames}
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with suppress(ClusterError), capture.global_and_fixture_disabled():
        if "alerts" in rungs:
            debian.program("prometheus", package="prometheus")
        if "e2e" in rungs:
            needed = [module for name, module in CATALOGUE.items() if name not in _NOT_OF_THE_CLUSTER]
            _build([program for module in needed for program in module.packages])
        elif "api" in rungs:
            _build([*PROCESSES, "kubectl"])
        if "api" in rungs:
            for module in (name for name, module in CATALOGUE.items() if not module.packages):
                built(module)
        if "engines" in rungs:
            _build(["jobset", "kueue"])
        if "targets" in rungs:
            _build(["lws", "argo-rollouts"])
        if "kserve" in rungs:
            _build(["kserve"])
        if "gitops" in rungs:
            _build(["argocd", "flux"])
        if "world" in fixtures:  # the end-to-end stories: operator, trainer and a served model
            images.prepare_beside(*images.TARGETS, "seaweedfs")


def _build(programs: list[str]) -> None:
    for program in programs:
        binary(program)
