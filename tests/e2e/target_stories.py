"""Targets other than a Deployment, with their own controllers and real pods: taken back, rolled, reverted.

`make targets` runs it and prints the rows of the table in docs/serving-targets.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from skill_store.repository import Head
from tests import cluster as test_cluster
from tests.cluster import Cluster
from tests.cluster.console import say
from tests.e2e import story
from tests.e2e.asking import asking
from tests.e2e.world import DEMO, World, condition, fetched
from tests.smollm2 import shallow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
Raw = dict[str, Any]
CONTAINER, MODELS = "kserve-container", "/mnt/models"
"""What KServe wants an engine's container to be called, and where it brings weights."""


@dataclass(frozen=True)
class Kind:
    """A kind of target, two of whose pods answer."""

    api_version: str
    name: str
    manifests: Callable[[Raw], list[Raw]]
    """From a pod template: the target without name and kind, and what it needs beside it."""
    controller: str = ""
    """The program that brings its pods, where that is not Kubernetes' own."""
    values: tuple[str, ...] = ()
    """Of the chart."""
    pods: int = 2
    app: str = ""
    """The label of all its pods, where it is not the target's name."""
    answering: dict[str, str] = field(default_factory=dict)
    """The labels that the pods to which requests go have beside."""
    container: str = "server"
    weights: str = "/weights"
    """Where its engine finds them, which is also what it calls them."""

    @property
    def target(self) -> str:
        """The name of target, Service and repository: nothing of an earlier kind's pods has to do with it."""
        return self.name.lower()

    @property
    def repository(self) -> str:
        return f"s3://models/{self.target}"

    @property
    def labels(self) -> dict[str, str]:
        return {"app": self.app or self.target}


def _replicas(template: Raw) -> Raw:
    return {"replicas": 2, "selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}


def _stateful_set(template: Raw) -> list[Raw]:
    return [{"spec": _replicas(template) | {"serviceName": template["metadata"]["labels"]["app"]}}]


def _leader_worker_set(template: Raw) -> list[Raw]:
    group = {"size": 2, "leaderTemplate": template, "workerTemplate": template}
    return [{"spec": {"replicas": 2, "leaderWorkerTemplate": group}}]


def _rollout(template: Raw) -> list[Raw]:
    steps = [{"setWeight": 50}, {"pause": {"duration": "5s"}}]
    return [
        {"spec": _replicas(template) | {"strategy": {"canary": {"maxSurge": 1, "maxUnavailable": 0, "steps": steps}}}}
    ]


def _inference_service(template: Raw) -> list[Raw]:
    """Weights by `skill://`; the engine is a ServingRuntime, as KServe has them."""
    pod = template["spec"]
    (engine,) = pod["containers"]
    container = engine | {
        "name": CONTAINER,
        "command": [word.replace("/weights", MODELS) for word in engine["command"]],
        "volumeMounts": [mount for mount in engine["volumeMounts"] if mount["name"] == "tmp"],
    }
    runtime = {
        "supportedModelFormats": [{"name": "transformers", "autoSelect": True}],
        "containers": [container],
        "volumes": [volume for volume in pod["volumes"] if volume["name"] == "tmp"],
    }
    model = {"modelFormat": {"name": "transformers"}, "storageUri": "skill://models/inferenceservice"}
    predictor = {"minReplicas": 2, "securityContext": pod["securityContext"], "model": model}
    return [
        {"spec": {"predictor": predictor}},
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ServingRuntime",
            "metadata": {"name": "transformers"},
            "spec": runtime,
        },
    ]


STATEFUL_SET = Kind("apps/v1", "StatefulSet", _stateful_set)
LEADER_WORKER_SET = Kind(
    "leaderworkerset.x-k8s.io/v1",
    "LeaderWorkerSet",
    _leader_worker_set,
    "lws",
    ("servingTargets.leaderWorkerSet=true",),
    pods=4,
    answering={"leaderworkerset.sigs.k8s.io/worker-index": "0"},
)
ROLLOUT = Kind("argoproj.io/v1alpha1", "Rollout", _rollout, "argo-rollouts", ("servingTargets.rollout=true",))
INFERENCE_SERVICE = Kind(
    "serving.kserve.io/v1beta1",
    "InferenceService",
    _inference_service,
    "kserve",
    (
        "servingTargets.inferenceService=true",
        "kserve.storageContainer.enabled=true",
        "kserve.storageContainer.env[0].name=AWS_ENDPOINT_URL_S3",
        "kserve.storageContainer.env[0].value=http://seaweedfs:8333",
        "kserve.storageContainer.env[1].name=AWS_DEFAULT_REGION",
        "kserve.storageContainer.env[1].value=us-east-1",
        "kserve.storageContainer.envFrom[0].secretRef.name=s3-creds",
        "kserve.storageContainer.resources.requests.cpu=50m",
    ),
    app="isvc.inferenceservice-predictor",
    container=CONTAINER,
    weights=MODELS,
)
KINDS = [
    STATEFUL_SET,
    pytest.param(LEADER_WORKER_SET, marks=pytest.mark.targets),
    pytest.param(ROLLOUT, marks=pytest.mark.targets),
    pytest.param(INFERENCE_SERVICE, marks=pytest.mark.kserve),
]


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> World:
    """An object store in a fresh namespace; the operator comes with the first kind."""
    world = World(cluster, "targets")
    world.create_namespace()
    world.start_storage()
    story.upload_smoke(world)
    return world


@pytest.fixture
def kind(world: World, request: pytest.FixtureRequest) -> Iterator[Kind]:
    """A kind whose controller runs, and which the operator has the rights to."""
    kind: Kind = request.param
    with ExitStack() as stack:
        if kind.controller:
            engine = test_cluster.engine(kind.controller)
            engine.install()
            engine.start()
            stack.callback(engine.stop)
        world.install_operator(*kind.values)
        # KServe's has a finalizer: its controller has to be there for it.
        stack.callback(world.kubectl, "delete", kind.target, "--all", "--cascade=foreground")
        yield kind


@pytest.mark.parametrize("kind", KINDS, indirect=True, ids=lambda kind: kind.name)
def test_target_is_taken_back_rolled_and_reverted(world: World, kind: Kind, tmp_path_factory: pytest.TempPathFactory):
    started = time.monotonic()
    base = _serve(world, kind, tmp_path_factory)
    altered, good = _update(kind, "altered"), _update(kind, "good")
    altered["spec"]["gates"]["approval"] = "Manual"
    world.apply(altered)
    name = altered["metadata"]["name"]
    version = story.wait_for_result(world, name)["status"]["published"]["version"]
    with world.storage():
        story.prepare_alteration(f"{kind.target}/versions/{version}/model.safetensors")()
    with asking(world, kind.target, kind.weights) as asked:
        story.approve(world, name)
        status = story.settle(world, name)["status"]
        assert status["phase"] == "RolledBack", status
        assert condition({"status": status}, "Stalled")["reason"] == "DigestMismatch"
        assert _served(world, kind) == [base.digest] * kind.pods
        back = story.seconds_back(status)

        name = good["metadata"]["name"]
        world.apply(good)
        status = story.settle(world, name)["status"]
        assert status["phase"] == "Succeeded", status
        assert status["rollout"]["podsVerified"] == f"{kind.pods}/{kind.pods}"
        assert _served(world, kind) == [status["published"]["digest"]] * kind.pods

        world.kubectl("patch", "skillupdate", name, "--type=merge", "--patch", '{"spec":{"revert":true}}')
        story.wait_for_phase(world, name, "Reverted")
        assert _served(world, kind) == [base.digest] * kind.pods
        say(f"{kind.name}: {time.monotonic() - started:.0f} s; from the fault to the last pod back {back:.0f} s")
        assert asked.errors() == []


def _serve(world: World, kind: Kind, folders: pytest.TempPathFactory) -> Head:
    """Applies the target with its Service and a repository of its own, of a few layers of SmolLM2."""
    with world.storage():
        repository = world.repository(kind.repository)
        repository.import_base(str(shallow(folders.mktemp(kind.target))))
        head = repository.head()
    assert head is not None
    service, deployment = world.example(DEMO / "serving.yaml")
    service["metadata"]["name"] = kind.target
    service["spec"]["selector"] = kind.labels | kind.answering
    template = deployment["spec"]["template"]
    template["metadata"]["labels"] = kind.labels
    template["spec"]["initContainers"][0]["env"][0]["value"] = kind.repository
    target, *beside = kind.manifests(template)
    target |= {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": kind.target}}
    world.apply(*beside, service, target)
    return head


def _update(kind: Kind, name: str) -> Raw:
    update = story.quick_update(f"{kind.target}-{name}")
    update["spec"]["model"] = {"uri": kind.repository}
    update["spec"]["serving"]["targetRef"] = {"apiVersion": kind.api_version, "kind": kind.name, "name": kind.target}
    update["spec"]["serving"]["container"] = kind.container
    return update


def _served(world: World, kind: Kind) -> list[str]:
    """The digest that each pod of the target says that it fetched."""
    return [fetched(pod)["digest"] for pod in world.serving_pods(kind.labels["app"])]
