"""A cluster that does not know JobSet, and learns it while an update waits."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.cluster.binaries import binary
from tests.cluster.console import ClusterError
from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import wait_until
from tests.operator.api.conftest import Operator
from tests.operator.api.place import Kubelet, Place, condition

pytestmark = [pytest.mark.api, pytest.mark.engines]


async def test_update_of_several_nodes_waits_for_jobset_and_goes_on_by_itself(
    plane: ControlPlane, place: Place, kubelet: Kubelet, operator: Operator
):
    await place.update("early", serving=False, training={"nodes": 2})
    stalled = await place.until("skillupdates", "early", lambda u: condition(u, "Stalled") if "status" in u else None)
    assert condition(stalled, "Stalled")["reason"] == "JobSetMissing"
    assert "install it" in condition(stalled, "Stalled")["message"]
    assert await place.step_jobs("early") == []
    crds = binary("jobset").parent / "config" / "crd" / "bases"
    try:
        await asyncio.to_thread(learn_jobset, plane, crds)
        await place.patch("skillupdates", "early", {"metadata": {"annotations": {"nudge": "1"}}})  # not for a minute
        await place.until_some("jobsets", "sdft.dev/update=early")
        assert operator.is_alive
        jobset = (await place.list("jobsets"))[0]["metadata"]["name"]
        then = "2026-01-01T00:00:00Z"
        completed = {"type": "Completed", "status": "True", "reason": "x", "message": "", "lastTransitionTime": then}
        await place.patch("jobsets", jobset, {"status": {"conditions": [completed]}}, "status")  # no pod ever spoke
        await place.until_some("jobsets", "sdft.dev/update=early,sdft.dev/run=2")  # seen at once: it is watched
    finally:
        operator.kill()  # what it watches goes
        await asyncio.to_thread(plane.kubectl, "delete", f"--filename={crds}")


def learn_jobset(plane: ControlPlane, crds: Path) -> None:
    """Installs the CRD; it is there when it can be listed, which is later than when it is known."""
    plane.kubectl("apply", "--server-side", f"--filename={crds}")
    wait_until(lambda: _is_listed(plane), "the new kind", 60)


def _is_listed(plane: ControlPlane) -> bool:
    with contextlib.suppress(ClusterError):
        plane.kubectl("get", "jobsets.jobset.x-k8s.io", "--all-namespaces")
        return True
    return False
