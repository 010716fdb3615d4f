"""A cluster that does not know JobSet, and learns it while an update waits."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.binaries import binary
from tests.cluster.controlplane import ControlPlane
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
    crds = binary("jobset").parent / "config/crd/bases"
    await asyncio.to_thread(plane.kubectl, "apply", "--server-side", f"--filename={crds}")
    try:
        await place.patch("skillupdates", "early", {"metadata": {"annotations": {"nudge": "1"}}})  # not for a minute
        await place.until_some("jobsets", "sdft.dev/update=early")
        assert operator.is_alive
        jobset = (await place.list("jobsets"))[0]["metadata"]["name"]
        completed = {"type": "Completed", "status": "True", "reason": "x", "message": "", "lastTransitionTime": NOW}
        await place.patch("jobsets", jobset, {"status": {"conditions": [completed]}}, "status")  # no pod ever spoke
        await place.until_some("jobsets", "sdft.dev/update=early,sdft.dev/run=2")  # seen at once: it is watched
    finally:
        operator.kill()  # what it watches goes
        await asyncio.to_thread(plane.kubectl, "delete", f"--filename={crds}")


NOW = "2026-01-01T00:00:00Z"
