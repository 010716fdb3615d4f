"""The operator is killed at every stage, runs twice at once, is away: the end is the same."""

from __future__ import annotations

import re

import httpx
import pytest

from skill_operator.api import FINALIZER
from tests.cluster.controlplane import ControlPlane
from tests.operator import raw
from tests.operator.api.conftest import Operator
from tests.operator.api.place import Kubelet, Place, annotation, condition

pytestmark = pytest.mark.api


async def test_operator_that_is_killed_at_every_stage_brings_the_update_to_its_end(
    place: Place, kubelet: Kubelet, operator: Operator
):
    """While it is dead the step that it waits for ends, so that it finds a world that has moved on."""
    scripts = {step: kubelet.steps.pop(step) for step in ("check", "train", "promote")}
    await place.serve()
    await place.update("hardy")
    for step in scripts:
        await place.until_some("pods", f"sdft.dev/step={step}")
        operator.kill()
        await kubelet.finish(step)
        await place.until_some("jobs", f"sdft.dev/step={step}", is_complete)
        operator.start()
    update = await place.phase("hardy", "Succeeded")
    assert await place.step_jobs("hardy") == ["check", "promote", "train"]
    assert update["status"]["rollout"]["podsVerified"] == "2/2"
    assert "Promoted" in await place.reasons("hardy")


def is_complete(job: raw.Raw) -> bool:
    return any(c["type"] == "Complete" and c["status"] == "True" for c in job.get("status", {}).get("conditions", []))


async def test_operator_that_is_killed_in_a_rollback_finishes_it(place: Place, kubelet: Kubelet, operator: Operator):
    broken = raw.serving_status(raw.fetch_failed("NotFound"), fetch_code=1, ready=False)
    good = kubelet.serving
    await place.serve()
    kubelet.serving = lambda pod: broken if pod["metadata"].get("annotations") else None
    await place.update("falling")
    await place.phase("falling", "RollingBack")
    operator.kill()
    kubelet.serving = good
    operator.start()
    update = await place.phase("falling", "RolledBack")
    assert condition(update, "Stalled")["reason"] == "NotFound"
    assert annotation(await place.get("deployments", "support-llm")) == ""


async def test_update_that_was_deleted_while_the_operator_was_away_goes_back_first(
    place: Place, kubelet: Kubelet, operator: Operator
):
    kubelet.steps["promote"] = []
    await place.serve()
    await place.update("absent")
    await place.until_some("pods", "sdft.dev/step=promote")
    operator.kill()
    await place.delete("skillupdates", "absent")
    held = await place.get("skillupdates", "absent")
    assert held["metadata"]["finalizers"] == [FINALIZER]
    operator.start()
    await place.until_gone("skillupdates", held)
    assert annotation(await place.get("deployments", "support-llm")) == ""


async def test_two_operators_at_once_are_harmless(
    place: Place, kubelet: Kubelet, operator: Operator, plane: ControlPlane, tmp_path
):
    second = Operator(plane, tmp_path / "second.log")
    second.start()
    try:
        await place.serve()
        await place.update("contested")
        await place.phase("contested", "Succeeded")
    finally:
        second.kill()
    assert await place.step_jobs("contested") == ["check", "promote", "train"]
    assert kubelet.seen == ["check", "train", "promote"]
    assert "Promoted" in await place.reasons("contested")


async def test_operator_shows_its_health_and_ends_cleanly_on_sigterm(
    operator: Operator, place: Place, kubelet: Kubelet
):
    kubelet.steps["train"] = []
    await place.update("open", serving=False)
    await place.phase("open", "Training")
    async with httpx.AsyncClient(trust_env=False) as client:
        ready = await client.get(f"http://127.0.0.1:{operator.health_port}/readyz")
        metrics = await client.get(f"http://127.0.0.1:{operator.metrics_port}/metrics")
    assert ready.status_code == 200
    assert re.search(r'skill_operator_updates\{phase="Training"\} [1-9]', metrics.text)
    assert "skill_operator_last_successful_reconcile_timestamp_seconds" in metrics.text
    assert operator.stop() == 0
