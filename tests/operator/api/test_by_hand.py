"""What people and other controllers do to a real Deployment in the middle of a rollout (docs/serving.md)."""

from __future__ import annotations

import pytest

from tests.cluster.console import ClusterError
from tests.cluster.controlplane import ControlPlane
from tests.operator import raw
from tests.operator.api.place import (
    Kubelet,
    Place,
    annotation,
    at_rest,
    condition,
    serves_what_it_is_told,
    slow_on,
)
from tests.operator.raw import Raw

pytestmark = [pytest.mark.api, pytest.mark.usefixtures("operator")]


async def rolling(place: Place, kubelet: Kubelet, name: str, deadline: int = 60) -> Raw:
    """Brings an update into its rollout: one of three pods is new, and not ready. Returns that pod."""
    kubelet.serving = slow_on(place.candidate)
    await place.serve()
    await place.update(name, serving={"progressDeadlineSeconds": deadline})
    first = await place.first_new_pod()
    await place.until("skillupdates", name, lambda update: "appliedAt" in update.get("status", {}).get("rollout", {}))
    return first


async def test_kubectl_rollout_undo_is_a_person_s_word(place: Place, kubelet: Kubelet, plane: ControlPlane):
    """Paused, kubectl itself refuses; after `rollout resume` it is done, and nothing is done against it."""
    await rolling(place, kubelet, "undone")
    await place.until("skillupdates", "undone", lambda update: "hold" in update["status"]["rollout"])
    where = ("deployment/support-llm", "--namespace", place.namespace)
    with pytest.raises(ClusterError, match="paused"):
        plane.kubectl("rollout", "undo", *where)
    plane.kubectl("rollout", "resume", *where)
    plane.kubectl("rollout", "undo", *where)
    update = await place.phase("undone", "RolledBack")
    assert condition(update, "Stalled")["reason"] == "ManualRollback"
    deployment = await place.until("deployments", "support-llm", at_rest)
    assert annotation(deployment) == ""
    assert "promote" not in kubelet.seen


async def test_target_that_is_deleted_ends_the_rollout(place: Place, kubelet: Kubelet):
    await rolling(place, kubelet, "homeless")
    await place.delete("deployments", "support-llm")
    update = await place.phase("homeless", "Failed")
    assert condition(update, "Stalled")["reason"] == "TargetMissing"
    await place.until("skillupdates", "homeless", lambda u: not u["metadata"].get("finalizers"))


async def test_scaled_to_nothing_and_back_the_rollout_goes_on(place: Place, kubelet: Kubelet):
    await rolling(place, kubelet, "parked", deadline=600)
    await place.patch("deployments", "support-llm", {"spec": {"replicas": 0}})
    await place.until("deployments", "support-llm", lambda d: not d["status"].get("replicas"))
    kubelet.serving = serves_what_it_is_told
    await place.patch("deployments", "support-llm", {"spec": {"replicas": 2}})
    await place.phase("parked", "Succeeded")
    deployment = await place.until("deployments", "support-llm", at_rest)
    assert annotation(deployment) == place.candidate


async def test_rollout_of_somebody_s_own_in_the_middle_of_ours(place: Place, kubelet: Kubelet, plane: ControlPlane):
    """`kubectl set image` beside new weights: both arrive, and it is said that two changes came together."""
    kubelet.steps["promote"] = []
    await place.serve()
    await place.update("mixed", serving={"soakSeconds": 0})
    await place.until_some("pods", "sdft.dev/step=promote")
    plane.kubectl("set", "image", "deployment/support-llm", "server=engine:2", "--namespace", place.namespace)
    await place.until("deployments", "support-llm", lambda d: at_rest(d) and _image(d) == "engine:2")
    await kubelet.finish("promote")
    await place.phase("mixed", "Succeeded")
    assert "MixedChange" in await place.reasons("mixed")


def _image(deployment: Raw) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


async def test_pods_that_are_not_admitted_are_taken_back_and_nobody_blames_the_weights(place: Place, kubelet: Kubelet):
    """A LimitRange stands for quotas and admission webhooks: the ReplicaSet is told why, again and again."""
    await place.serve()
    await place.update("refused", gates={"approval": "Manual"})
    await place.phase("refused", "AwaitingApproval")
    limits = {"limits": [{"type": "Pod", "min": {"cpu": "1"}}]}
    await place.create("limitranges", {"metadata": {"name": "large"}, "spec": limits})
    await place.patch("skillupdates", "refused", {"spec": {"approved": True}})
    update = await place.phase("refused", "Failed")
    stalled = condition(update, "Stalled")
    assert stalled["reason"] == "PodNotCreated"
    assert "minimum cpu usage per Pod is 1" in stalled["message"]
    deployment = await place.until("deployments", "support-llm", at_rest)
    assert annotation(deployment) == ""


async def test_engine_whose_image_is_not_there_is_taken_back(place: Place, kubelet: Kubelet):
    first = await rolling(place, kubelet, "imageless")
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image engine"}}
    status = raw.serving_status(raw.fetched(place.candidate, raw.CHILD[1]), ready=False, engine={"state": waiting})
    await kubelet.write(first["metadata"]["name"], status)
    update = await place.phase("imageless", "Failed")
    assert condition(update, "Stalled")["reason"] == "PodNotCreated"
    assert "ImagePullBackOff" in condition(update, "Stalled")["message"]
    rollback = update["status"]["rollout"]["rollback"]
    assert rollback["finishedAt"] >= rollback["startedAt"] >= rollback["faultAt"]
