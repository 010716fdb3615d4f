"""Rollouts of LeaderWorkerSets by their own controller and webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from skill_contract.step import PromoteConfig
from tests.cluster.controlplane import ControlPlane
from tests.cluster.engines import Engine
from tests.operator.api.conftest import Operator, prepare, running_operator
from tests.operator.api.place import Kubelet, Place
from tests.operator.api.stories import begin, is_left_alone, is_rolled_back, is_rolled_out
from tests.operator.api.targets import NAME, Served, leader_worker_set

pytestmark = [pytest.mark.api, pytest.mark.targets, pytest.mark.usefixtures("operator")]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane as the other tests have, with both controllers."""
    with ControlPlane() as plane, ExitStack() as stack:
        engines = [Engine("lws", plane.kubeconfig, plane.folder)]
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


@pytest.fixture(params=[leader_worker_set], ids=lambda make: make.__name__)
def served(request: pytest.FixtureRequest) -> Served:
    return request.param()


async def test_candidate_is_rolled_out_by_one_annotation(place: Place, kubelet: Kubelet, served: Served):
    await is_rolled_out(place, served)


async def test_version_that_cannot_be_fetched_is_rolled_back(place: Place, kubelet: Kubelet, served: Served):
    await is_rolled_back(place, kubelet, served)


async def test_target_that_somebody_else_changes_is_left_alone(place: Place, kubelet: Kubelet, served: Served):
    await is_left_alone(place, kubelet, served)


# -- what only one kind can do ----------------------------------------------------------------------------------------


async def test_only_leaders_are_asked(place: Place, kubelet: Kubelet):
    served = leader_worker_set()
    await begin(place, served, "asked")
    await place.phase("asked", "Succeeded")
    (job,) = await place.list("jobs", "sdft.dev/step=promote")
    values = {v["name"]: v.get("value") for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    config = PromoteConfig.parse_json(values["SKILL_CONFIG"])
    assert {pod.name for pod in config.pods} == {f"{NAME}-0", f"{NAME}-1"}
