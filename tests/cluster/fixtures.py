"""pytest fixtures on real Kubernetes, for `pytest_plugins` of the root conftest."""

from collections.abc import Iterator

import pytest

from tests.cluster.controlplane import ControlPlane


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane with controllers for the whole session: a real API, real garbage collection, no node."""
    with ControlPlane(controllers=True) as plane:
        yield plane
