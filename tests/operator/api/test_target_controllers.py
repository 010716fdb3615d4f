"""Rollouts of LeaderWorkerSets and of Argo's Rollouts, by their own controllers and webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from skill_contract.step import PromoteConfig
from skill_operator.api import WEIGHTS_ANNOTATION
from tests.cluster.controlplane import ControlPlane
from tests.cluster.engines import Engine, Rollouts
from tests.operator import raw
from tests.operator.api.conftest import Operator, prepare, running_operator
from tests.operator.api.place import Kubelet, Place, annotation, condition
from tests.operator.api.stories import Stories, begin, candidate, told
from tests.operator.api.targets import NAME, Served, leader_worker_set, rollout
from tests.operator.raw import Raw

pytestmark = [pytest.mark.api, pytest.mark.targets, pytest.mark.usefixtures("operator")]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane as the other tests have, with both controllers."""
    with ControlPlane() as plane, ExitStack() as stack:
        engines = [Engine("lws", plane.kubeconfig, plane.folder), Rollouts(plane.kubeconfig, plane.folder)]
        for engine in engines:
            engine.install()
            stack.callback(engine.stop)
        prepare(plane, "servingTargets.leaderWorkerSet=true", "servingTargets.rollout=true")
        plane.start_controllers()
        for engine in engines:
            engine.start()
        yield plane


@pytest.fixture(scope="module")
def operator_process(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    yield from running_operator(plane, tmp_path_factory)


@pytest.fixture(params=[leader_worker_set, rollout], ids=lambda make: make.__name__)
def served(request: pytest.FixtureRequest) -> Served:
    return request.param()


class TestEveryKind(Stories):
    """The three stories, with each of these kinds."""


# -- what only one kind can do ----------------------------------------------------------------------------------------


async def test_only_leaders_are_asked(place: Place, kubelet: Kubelet):
    served = leader_worker_set()
    await begin(place, served, "asked")
    await place.phase("asked", "Succeeded")
    (job,) = await place.list("jobs", "sdft.dev/step=promote")
    values = {v["name"]: v.get("value") for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    config = PromoteConfig.parse_json(values["SKILL_CONFIG"])
    assert {pod.name for pod in config.pods} == {f"{NAME}-0", f"{NAME}-1"}


async def paused(place: Place, name: str) -> Raw:
    """The update once it waits for somebody to let the canary go on."""
    return await place.until("skillupdates", name, lambda u: "kubectl argo rollouts promote" in ready(u))


def ready(update: Raw) -> str:
    return condition(update, "Ready").get("message", "") if "status" in update else ""


async def test_steps_of_a_rollout_are_respected(place: Place, kubelet: Kubelet):
    served = rollout({"setWeight": 50}, {"pause": {}})
    await begin(place, served, "canary")
    await paused(place, "canary")
    pods = await place.list("pods", served.pods)
    weights = [pod["metadata"].get("annotations", {}).get(WEIGHTS_ANNOTATION, "") for pod in pods]
    assert sorted(weights) == ["", candidate(place)]
    await place.patch(served.collection, NAME, {"status": {"pauseConditions": None}}, "status")  # what `promote` does
    await place.phase("canary", "Succeeded")
    assert await told(place, served) == {candidate(place)}


async def test_rollout_that_is_aborted_is_told_the_version_before(place: Place, kubelet: Kubelet):
    served = rollout({"setWeight": 50}, {"pause": {}})
    await begin(place, served, "aborted")
    await paused(place, "aborted")
    await place.patch(served.collection, NAME, {"status": {"abort": True}}, "status")  # what `abort` does
    update = await place.phase("aborted", "RolledBack")
    assert condition(update, "Stalled")["reason"] == "RolloutAborted"
    assert await told(place, served) == {""}
    after = await place.get(served.collection, NAME)
    assert "annotations" not in after["spec"]["template"]["metadata"]


async def test_rollout_of_a_deployment_is_told_by_the_deployment(place: Place, kubelet: Kubelet):
    behind = raw.deployment()
    del behind["status"], behind["metadata"]["generation"]
    behind["metadata"]["name"], behind["spec"]["replicas"] = "behind", 0
    await place.create("deployments", behind)
    served = rollout()
    spec = served.manifest["spec"]
    del spec["template"], spec["selector"]
    spec["workloadRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "behind"}
    await begin(place, served, "behind")
    update = await place.phase("behind", "Succeeded")
    assert update["status"]["rollout"]["podsVerified"] == "2/2"
    assert annotation(await place.get("deployments", "behind")) == candidate(place)
    assert await told(place, served) == {candidate(place)}
