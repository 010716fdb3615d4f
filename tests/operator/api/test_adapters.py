"""An adapter comes into engines that run, on a real API server: no pod is replaced, whatever becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from skill_contract.adapters import Told
from skill_contract.manifest import FetchMessage
from tests.operator.api.conftest import Operator
from tests.operator.api.live import LivePods, fetched, live_pods
from tests.operator.api.place import Kubelet, Place, condition
from tests.operator.live import CONFIG_MAP

pytestmark = pytest.mark.api


@pytest.fixture
async def live(place: Place, kubelet: Kubelet) -> AsyncIterator[LivePods]:
    async with live_pods(place) as pods:
        kubelet.serving = pods.becomes
        yield pods


async def uids(place: Place) -> set[str]:
    return {pod["metadata"]["uid"] for pod in await place.list("pods", "app=support-llm")}


async def test_adapter_is_held_proved_switched_and_promoted_in_the_same_pods(
    place: Place, kubelet: Kubelet, live: LivePods, operator: Operator
):
    before, pods = await live.serve(), await uids(place)
    await live.update("lively")
    update = await place.phase("lively", "Succeeded")
    assert update["status"]["rollout"]["podsVerified"] == "2/2"
    candidate = place.candidate
    assert live.history == [Told(), Told(weights=candidate, held=True), Told(weights=candidate)]
    after = await place.get("deployments", "support-llm")
    assert (after["metadata"]["generation"], await uids(place)) == (before["metadata"]["generation"], pods)
    told = await place.get("configmaps", CONFIG_MAP)
    assert told["data"] == {"weights": candidate}
    (owned,) = (entry for entry in told["metadata"]["managedFields"] if entry["manager"] == "skill-operator")
    assert (owned["operation"], owned["fieldsV1"]) == ("Apply", {"f:data": {"f:weights": {}}})

    await place.patch("skillupdates", "lively", {"spec": {"revert": True}})
    await place.phase("lively", "Reverted")
    assert (await place.get("configmaps", CONFIG_MAP)).get("data", {}) == {}
    assert await uids(place) == pods


async def test_adapter_that_one_pod_of_two_refuses_goes_from_both_and_nobody_has_seen_it(
    place: Place, kubelet: Kubelet, live: LivePods, operator: Operator
):
    refusal = FetchMessage(outcome="Failed", reason="AdapterRefused", message="rank 64 is greater than 16")

    def fate(address: str, told: Told) -> FetchMessage:
        return refusal if told.weights == place.candidate and address == live.addresses[1] else fetched(address, told)

    live.fate = fate
    await live.serve()
    await live.update("refused")
    update = await place.phase("refused", "RolledBack")
    assert condition(update, "Stalled")["reason"] == "AdapterRefused"
    assert "rank 64" in condition(update, "Stalled")["message"]
    assert live.history == [Told(), Told(weights=place.candidate, held=True), Told()]
    assert "promote" not in kubelet.seen


async def test_operator_that_is_killed_at_every_point_brings_the_adapter_to_its_end(
    place: Place, kubelet: Kubelet, live: LivePods, operator: Operator
):
    """While it is dead what it waits for happens, so that it finds a world that has moved on."""
    prove, promote = kubelet.steps.pop("prove"), kubelet.steps.pop("promote")
    live.fate = lambda _, told: None if told.weights else fetched(_, told)
    await live.serve()
    await live.update("hardy")

    await place.until("configmaps", CONFIG_MAP, lambda told: told.get("data", {}).get("held"))
    operator.kill()
    live.fate = fetched
    operator.start()

    await place.until_some("pods", "sdft.dev/step=prove")
    operator.kill()
    await kubelet.finish("prove", prove[0])
    operator.start()

    await place.until("configmaps", CONFIG_MAP, lambda told: "held" not in told["data"])
    operator.kill()
    operator.start()

    await place.until_some("pods", "sdft.dev/step=promote")
    operator.kill()
    await kubelet.finish("promote", promote[0])
    operator.start()

    update = await place.phase("hardy", "Succeeded")
    assert update["status"]["rollout"]["podsVerified"] == "2/2"
    assert live.history == [Told(), Told(weights=place.candidate, held=True), Told(weights=place.candidate)]
    assert await place.step_jobs("hardy") == ["check", "promote", "train"]
