"""The hold of a real Deployment after its first new pod, by its own controller; only what containers do is played."""

from __future__ import annotations

import pytest

from skill_contract.outcome import Result
from tests.cluster.controlplane import ControlPlane
from tests.operator import raw
from tests.operator.api.conftest import Operator
from tests.operator.api.place import Kubelet, Place, annotation, at_rest, condition, serves_what_it_is_told, slow_on
from tests.operator.raw import Raw, Step

pytestmark = [pytest.mark.api, pytest.mark.usefixtures("operator")]


def is_paused(deployment: Raw) -> bool:
    return bool(deployment["spec"].get("paused"))


async def hold(place: Place, kubelet: Kubelet, name: str) -> Raw:
    """Brings an update to its hold: the first new pod is there, and not ready yet. Returns that pod."""
    kubelet.serving = slow_on(place.candidate)
    await place.serve()
    await place.update(name)
    await place.until("skillupdates", name, lambda update: _hold(update).get("since"))
    assert is_paused(await place.get("deployments", "support-llm"))
    (first,) = await place.on_candidate()
    kubelet.serving = serves_what_it_is_told
    return first


async def test_second_pod_comes_when_the_first_is_proved(place: Place, kubelet: Kubelet):
    kubelet.steps["prove"] = []
    first = await hold(place, kubelet, "careful")
    deployment = await place.get("deployments", "support-llm")
    (owned,) = [e for e in deployment["metadata"]["managedFields"] if e["manager"] == "skill-operator"]
    assert owned["fieldsV1"]["f:spec"].keys() == {"f:paused", "f:template"}
    await kubelet.write(first["metadata"]["name"], serves_what_it_is_told(first))
    await place.until_some("pods", "sdft.dev/step=prove")
    assert [pod["metadata"]["name"] for pod in await place.on_candidate()] == [first["metadata"]["name"]]
    await kubelet.finish("prove")
    update = await place.phase("careful", "Succeeded")
    assert update["status"]["rollout"]["hold"]["proved"]
    deployment = await place.until("deployments", "support-llm", at_rest)
    assert (is_paused(deployment), annotation(deployment)) == (False, place.candidate)
    assert {"RolloutHeld", "FirstPodProved", "Promoted"} <= await place.reasons("careful")


async def test_first_pod_that_answers_like_other_weights_never_has_a_second(place: Place, kubelet: Kubelet):
    kubelet.steps["prove"] = [raw.said(raw.outcome(Step.PROMOTE, Result.REJECTED, "OutputMismatch", "A is not B"))]
    first = await hold(place, kubelet, "wrong")
    names: set[str] = set()
    await kubelet.write(first["metadata"]["name"], serves_what_it_is_told(first))
    update = await place.phase("wrong", "RolledBack")
    names |= {pod["metadata"]["name"] for pod in await place.on_candidate()}
    assert names <= {first["metadata"]["name"]}
    assert condition(update, "Stalled")["reason"] == "OutputMismatch"
    deployment = await place.until("deployments", "support-llm", at_rest)
    assert (is_paused(deployment), annotation(deployment)) == (False, "")


async def test_operator_that_is_killed_in_the_hold_goes_on(place: Place, kubelet: Kubelet, operator: Operator):
    first = await hold(place, kubelet, "hardy")
    operator.kill()
    await kubelet.write(first["metadata"]["name"], serves_what_it_is_told(first))
    operator.start()
    update = await place.phase("hardy", "Succeeded")
    assert update["status"]["rollout"]["hold"]["proved"]
    assert not is_paused(await place.get("deployments", "support-llm"))


async def test_update_that_is_deleted_in_the_hold_takes_the_first_pod_back(place: Place, kubelet: Kubelet):
    await hold(place, kubelet, "regretted")
    update = await place.get("skillupdates", "regretted")
    await place.delete("skillupdates", "regretted")
    await place.until_gone("skillupdates", update)
    deployment = await place.until("deployments", "support-llm", at_rest)
    assert (is_paused(deployment), annotation(deployment)) == (False, "")


async def test_hold_can_be_ended_by_hand(place: Place, kubelet: Kubelet, plane: ControlPlane):
    """As `kubectl rollout resume` does; `kubectl rollout undo` is refused by kubectl itself until then."""
    first = await hold(place, kubelet, "hurried")
    plane.kubectl("rollout", "resume", "deployment/support-llm", "--namespace", place.namespace)
    await kubelet.write(first["metadata"]["name"], serves_what_it_is_told(first))
    update = await place.phase("hurried", "Succeeded")
    assert not update["status"]["rollout"]["hold"].get("proved")
    assert "NotHeld" in await place.reasons("hurried")


async def test_field_that_git_owns_is_not_taken(place: Place, kubelet: Kubelet):
    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "support-llm"}}
    await place.serve()
    await place.apply("deployments", "support-llm", document | {"spec": {"paused": False}}, "argocd-controller")
    kubelet.serving = slow_on(place.candidate)
    await place.update("declared")
    update = await place.until("skillupdates", "declared", lambda update: _hold(update).get("ended"))
    assert "argocd-controller" in update["status"]["rollout"]["hold"]["message"]
    kubelet.serving = serves_what_it_is_told
    (first,) = await place.on_candidate()
    await kubelet.write(first["metadata"]["name"], serves_what_it_is_told(first))
    await place.phase("declared", "Succeeded")


def _hold(update: Raw) -> Raw:
    return update.get("status", {}).get("rollout", {}).get("hold", {})
