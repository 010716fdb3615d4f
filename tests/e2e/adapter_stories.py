"""Adapters that come into engines that run, by a real kubelet: no pod is replaced, nobody asks in vain.

`make targets` runs it beside the stories of other kinds; the outcome is in docs/adapters.md.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import Cluster
from tests.cluster.console import say
from tests.e2e import story
from tests.e2e.asking import asking
from tests.e2e.computing import compute, config_map, mount, sources
from tests.e2e.world import DEMO, World, condition
from tests.smollm2 import shallow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
Raw = dict[str, Any]
NAME = "lively"
REPOSITORY = f"s3://models/{NAME}"
PORT = 8080
"""The agent's."""


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> World:
    """Operator with the right to tell adapters, an object store; nothing is served yet."""
    world = World(cluster, "adapters")
    world.create_namespace()
    world.install_operator(f"servingTargets.adapters[0]={NAME}-adapter")
    world.start_storage()
    story.upload_smoke(world)
    return world


def test_adapter_is_taken_back_loaded_and_reverted_in_the_same_pods(world: World, tmp_path: Path):
    _serve(world, tmp_path / "base")
    pods = _pods(world)
    world.apply(_update("altered", approval="Manual"))
    version = story.wait_for_result(world, "altered")["status"]["published"]["version"]
    with world.storage():
        story.prepare_alteration(f"{NAME}/versions/{version}/adapter/adapter_model.safetensors")()
    with asking(world, NAME, NAME) as asked:
        story.approve(world, "altered")
        status = story.settle(world, "altered")["status"]
        assert status["phase"] == "RolledBack", status
        assert condition({"status": status}, "Stalled")["reason"] == "DigestMismatch"
        say(f"From the fault to the last pod back {story.seconds_back(status):.0f} s")

        world.apply(_update("good", approval="Manual"))
        story.wait_for_result(world, "good")
        story.approve(world, "good")
        approved = time.monotonic()
        status = story.settle(world, "good")["status"]
        assert status["phase"] == "Succeeded", status
        assert status["rollout"]["podsVerified"] == "2/2"
        say(f"From the approval to the promotion: {time.monotonic() - approved:.0f} s")
        assert _answering(world) == {status["published"]["version"]}

        world.kubectl("patch", "skillupdate", "good", "--type=merge", "--patch", '{"spec":{"revert":true}}')
        story.wait_for_phase(world, "good", "Reverted")
        assert _answering(world) == {NAME}, "the pods' own weights"
        assert asked.errors() == []
    assert _pods(world) == pods


def _serve(world: World, folder: Path) -> None:
    """Two engines behind the agents that load adapters into them, as docs/adapters.md has it; ready when this ends."""
    with world.storage():
        repository = world.repository(REPOSITORY)
        repository.import_base(str(shallow(folder)))
        head = repository.head()
    assert head is not None
    service, deployment = world.example(DEMO / "serving.yaml")
    service["metadata"]["name"] = deployment["metadata"]["name"] = NAME
    service["spec"] |= {"selector": {"app": NAME}, "ports": [{"name": "http", "port": 80, "targetPort": PORT}]}
    deployment["spec"]["selector"]["matchLabels"] = deployment["spec"]["template"]["metadata"]["labels"] = {"app": NAME}
    pod = deployment["spec"]["template"]["spec"]
    (fetch,), (engine,) = pod["initContainers"], pod["containers"]
    storage = [variable for variable in fetch["env"] if not variable["name"].startswith("SKILL_")]
    fetch["env"] = [{"name": "SKILL_DEFAULT", "value": f"{REPOSITORY}/versions/{head.version}"}, *storage]
    _, tmp = fetch["volumeMounts"]
    agent = fetch | {
        "name": "adapters",
        "restartPolicy": "Always",
        "args": ["adapters", "--engine", "vllm", "--model", NAME, "--port", str(PORT), "--told", "/told"],
        "env": storage,
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/skillupdate/ready", "port": PORT}, "periodSeconds": 2},
        "volumeMounts": [mount("weights"), tmp, mount("adapters", read_only=False), mount("told")],
    }
    pod["initContainers"] = [fetch, agent]
    compute(world, pod, NAME, mount("adapters"))
    del engine["ports"]
    for probe in ("startupProbe", "readinessProbe"):
        engine[probe]["httpGet"]["port"] = PORT
    pod["volumes"] += [
        {"name": "adapters", "emptyDir": {}},
        {"name": "told", "configMap": {"name": f"{NAME}-adapter", "optional": True}},
    ]
    world.apply(sources(), config_map(f"{NAME}-adapter", {}), service, deployment)
    world.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=300s")


def _update(name: str, *, approval: str) -> Raw:
    update = story.quick_update(name)
    spec = update["spec"]
    spec["model"] = {"uri": REPOSITORY}
    spec["method"] |= {
        "adaptation": {"type": "LoRA", "lora": {"publish": "Adapter"}},
        "optimizer": {"learningRate": "1e-3"},
    }
    spec["gates"]["approval"] = approval
    spec["serving"] |= {"servedModelName": NAME, "port": PORT, "strategy": "Adapter"}
    spec["serving"]["targetRef"]["name"] = NAME
    return update


def _pods(world: World) -> set[str]:
    return {pod["metadata"]["uid"] for pod in world.serving_pods(NAME)}


def _answering(world: World) -> set[str]:
    """What each pod says that it answers with, asked for the served name."""
    question = {"model": NAME, "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 1}
    return {_answer(world, pod["metadata"]["name"], question)["model"] for pod in world.serving_pods(NAME)}


def _answer(world: World, pod: str, question: Raw) -> Raw:
    with world.forward(f"pod/{pod}", PORT) as url:
        return dict(httpx.post(f"{url}/v1/chat/completions", json=question, timeout=120).raise_for_status().json())
