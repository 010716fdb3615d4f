"""Killing the trainer, one of two trainers, or the operator, and upgrading it, costs time only.

Training goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.cluster.processes import wait_until
from tests.e2e import story
from tests.e2e.world import OPERATOR_NAMESPACE, World
from tests.smollm2 import shallow, smollm2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def _update(name: str, base: str) -> dict[str, Any]:
    """A short run into a repository of its own, published without serving."""
    update = story.demo_update()
    update["metadata"]["name"] = name
    spec = update["spec"]
    del spec["serving"]
    spec["model"] = {"uri": f"s3://models/{name}", "base": f"s3://models/base/{base}"}
    spec["skill"] = {"name": "smoke"}
    spec["method"] |= {"steps": 12, "batchSize": 2}
    spec["training"] |= {
        "checkpoint": {"everySteps": 4, "keep": 2},
        "resources": {"requests": {"cpu": "100m", "memory": "2Gi"}},  # two side by side on this one node
    }
    spec |= story.smoke()
    return update


def _kill_processes(cluster_command: str, pod_uid: str = "") -> int:
    """Kills, by SIGKILL, the processes in this machine's pods whose command line contains the words; returns how many.

    Only processes in a pod's cgroup count: nothing that the cluster did not start can be hit.
    """
    killed = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            in_pod = re.search(f"kubepods.*/pod{pod_uid}", (folder / "cgroup").read_text())
        except OSError:
            continue
        if in_pod and cluster_command in command:
            os.kill(int(folder.name), signal.SIGKILL)
            killed += 1
    return killed


def _weights(world: World, name: str) -> str:
    with world.storage():
        (_, manifest), *_ = world.repository(f"s3://models/{name}").lineage()
    (digest,) = [file.sha256 for file in manifest.files if file.path == "model.safetensors"]
    return digest


def _wait_for_checkpoint(world: World, name: str) -> str:
    """Waits until a run has saved its first checkpoint, and returns its pod's uid; it is short of its second then."""
    update = story.wait_for(world, name, lambda update: "pod" in update.get("status", {}).get("training", {}))
    pod = update["status"]["training"]["pod"]
    world.wait_for_words(pod, "saved step")
    return str(world.get("pod", pod)["metadata"]["uid"])


@pytest.fixture(scope="module")
def inputs(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the runs of this file need in the buckets."""
    models = {"whole": smollm2(), "shallow": shallow(tmp_path_factory.mktemp("shallow"))}
    with world.storage():
        s3 = boto3.client("s3")
        for name, folder in models.items():
            for file in folder.iterdir():
                s3.upload_file(str(file), "models", f"base/{name}/{file.name}")
    story.upload_smoke(world)


@pytest.mark.usefixtures("inputs")
def test_killed_trainer_and_upgraded_and_killed_operator_end_with_the_same_weights(world: World):
    world.apply(_update("disturbed", "shallow"), _update("undisturbed", "shallow"))
    assert _kill_processes("skill-trainer train", _wait_for_checkpoint(world, "disturbed")) > 0
    (training,) = _trainings(world, "disturbed")
    world.install_operator("podAnnotations.upgraded=yes")
    story.wait_for(world, "disturbed", lambda update: update["status"].get("training", {}).get("restarts", 0) >= 1)
    assert _kill_processes("skill-operator") > 0

    disturbed = story.settle(world, "disturbed")
    undisturbed = story.settle(world, "undisturbed")
    assert (disturbed["status"]["phase"], undisturbed["status"]["phase"]) == ("Succeeded", "Succeeded")
    assert _weights(world, "disturbed") == _weights(world, "undisturbed")
    wait_until(lambda: _upgraded(world)["status"]["containerStatuses"][0]["restartCount"] > 0, "its restart", 60)
    (ended,) = _trainings(world, "disturbed")
    assert ended["metadata"]["uid"] == training["metadata"]["uid"], (
        "neither upgrade nor kill may begin another training"
    )
    began = _upgraded(world)["metadata"]["creationTimestamp"]
    assert ended["status"]["completionTime"] > began, "it was under way meanwhile"


def _trainings(world: World, update: str) -> list[dict[str, Any]]:
    return world.items("jobs", f"sdft.dev/update={update},sdft.dev/step=train")


def _upgraded(world: World) -> dict[str, Any]:
    """The operator's pod that the upgrade brought."""
    pods = json.loads(world.cluster.kubectl("--namespace", OPERATOR_NAMESPACE, "get", "pods", "--output", "json"))
    (pod,) = (pod for pod in pods["items"] if pod["metadata"].get("annotations", {}).get("upgraded") == "yes")
    return dict(pod)


@pytest.mark.usefixtures("inputs", "jobset")
def test_two_machines_that_lose_one_go_on_together_from_the_checkpoint(world: World):
    update = _update("gang", "whole")
    update["spec"]["training"] |= {
        "nodes": 2,
        "checkpoint": {"everySteps": 2, "keep": 2},
        "template": {"env": [{"name": "OMP_NUM_THREADS", "value": "1"}]},
    }
    lora = {"type": "LoRA", "lora": {}}
    update["spec"]["method"] |= {"adaptation": lora, "steps": 8, "rollout": {"maxNewTokens": 8}}
    update["spec"]["method"]["sdft"] = {"teacher": {"weights": "Frozen"}}
    world.apply(update)
    _wait_for_checkpoint(world, "gang")
    pods = _gang(world)
    assert _kill_processes("skill-trainer train", pods[1]["metadata"]["uid"]) > 0

    status = story.settle(world, "gang")["status"]
    assert status["phase"] == "Succeeded", status
    assert (status["training"]["restarts"], status["training"]["attempt"]) == (1, 2)
    first, second = _gang(world)
    assert {pod["metadata"]["uid"] for pod in (first, second)}.isdisjoint(pod["metadata"]["uid"] for pod in pods)
    said = world.kubectl("logs", first["metadata"]["name"])
    assert "saved step 2 of 8" not in said
    assert "saved step 8 of 8" in said
    assert _weights(world, "gang")


def _gang(world: World) -> list[dict[str, Any]]:
    """The trainers' pods by their number."""
    pods = world.items("pods", "sdft.dev/update=gang,sdft.dev/step=train")
    return sorted(pods, key=lambda pod: pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])
