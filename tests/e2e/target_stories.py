"""Targets other than a Deployment, with their own controllers and real pods: taken back, rolled, reverted.

`make targets` runs it; the outcome is in docs/serving-targets.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from skill_store.repository import Head
from tests import cluster as test_cluster
from tests.cluster import Cluster
from tests.e2e import story
from tests.e2e.asking import asking
from tests.e2e.world import DEMO, World, condition, fetched
from tests.smollm2 import shallow

pytestmark = [pytest.mark.e2e, pytest.mark.targets, pytest.mark.timeout(1800)]
Raw = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of target, two of whose pods answer."""

    api_version: str
    name: str
    spec: Callable[[Raw], Raw]
    """From a pod template."""
    pods: int = 2
    answering: tuple[str, str] = ("app", "target")
    """The label of the pods that requests go to."""


def _replicas(template: Raw) -> Raw:
    return {"replicas": 2, "selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}


def _stateful_set(template: Raw) -> Raw:
    return _replicas(template) | {"serviceName": "target"}


def _leader_worker_set(template: Raw) -> Raw:
    return {"replicas": 2, "leaderWorkerTemplate": {"size": 2, "leaderTemplate": template, "workerTemplate": template}}


def _rollout(template: Raw) -> Raw:
    steps = [{"setWeight": 50}, {"pause": {"duration": "5s"}}]
    return _replicas(template) | {"strategy": {"canary": {"maxSurge": 1, "maxUnavailable": 0, "steps": steps}}}


LEADERS = ("leaderworkerset.sigs.k8s.io/worker-index", "0")
KINDS = [
    Kind("apps/v1", "StatefulSet", _stateful_set),
    Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", _leader_worker_set, pods=4, answering=LEADERS),
    Kind("argoproj.io/v1alpha1", "Rollout", _rollout),
]


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    """Operator with the rights to every kind, their controllers, an object store; nothing is served yet."""
    world = World(cluster, "targets")
    world.create_namespace()
    with ExitStack() as stack:
        for program in ("lws", "argo-rollouts"):
            engine = test_cluster.engine(program)
            engine.install()
            engine.start()
            stack.callback(engine.stop)
        world.install_operator("servingTargets.leaderWorkerSet=true", "servingTargets.rollout=true")
        world.start_storage()
        story.upload_smoke(world)
        yield world


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_target_is_taken_back_rolled_and_reverted(world: World, kind: Kind, tmp_path_factory: pytest.TempPathFactory):
    base = _serve(world, kind, tmp_path_factory)
    altered, good = (_update(kind, name) for name in ("altered", "good"))
    altered["spec"]["gates"]["approval"] = "Manual"
    world.apply(altered)
    name = altered["metadata"]["name"]
    version = story.wait_for_result(world, name)["status"]["published"]["version"]
    with world.storage():
        story.prepare_alteration(f"{kind.name.lower()}/versions/{version}/model.safetensors")()
    with asking(world, "target") as asked:
        story.approve(world, name)
        status = story.settle(world, name)["status"]
        assert status["phase"] == "RolledBack", status
        assert condition({"status": status}, "Stalled")["reason"] == "DigestMismatch"
        assert _served(world, kind) == [base.digest] * kind.pods

        name = good["metadata"]["name"]
        world.apply(good)
        status = story.settle(world, name)["status"]
        assert status["phase"] == "Succeeded", status
        assert status["rollout"]["podsVerified"] == f"{kind.pods}/{kind.pods}"
        assert _served(world, kind) == [status["published"]["digest"]] * kind.pods

        world.kubectl("patch", "skillupdate", name, "--type=merge", "--patch", '{"spec":{"revert":true}}')
        story.wait_for_phase(world, name, "Reverted")
        assert _served(world, kind) == [base.digest] * kind.pods
        assert asked.errors() == []
    world.kubectl("delete", kind.name.lower(), "target")


def _serve(world: World, kind: Kind, folders: pytest.TempPathFactory) -> Head:
    """Applies the target with its Service and a repository of its own, of a few layers of SmolLM2."""
    uri = f"s3://models/{kind.name.lower()}"
    with world.storage():
        repository = world.repository(uri)
        repository.import_base(str(shallow(folders.mktemp(kind.name))))
        head = repository.head()
    assert head is not None
    service, deployment = world.example(DEMO / "serving.yaml")
    service["metadata"]["name"] = "target"
    service["spec"]["selector"] = {"app": "target"} | dict([kind.answering])
    template = deployment["spec"]["template"]
    template["metadata"]["labels"] = {"app": "target"}
    template["spec"]["initContainers"][0]["env"][0]["value"] = uri
    target = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": "target"}}
    world.apply(service, target | {"spec": kind.spec(template)})
    return head


def _update(kind: Kind, name: str) -> Raw:
    update = story.quick_update(f"{kind.name.lower()}-{name}")
    update["spec"]["model"] = {"uri": f"s3://models/{kind.name.lower()}"}
    update["spec"]["serving"]["targetRef"] = {"apiVersion": kind.api_version, "kind": kind.name, "name": "target"}
    return update


def _served(world: World, kind: Kind) -> list[str]:
    """The digest that each pod of the target says that it fetched."""
    return [fetched(pod)["digest"] for pod in world.serving_pods("target")]
