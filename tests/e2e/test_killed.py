"""Killing the trainer and the operator costs time only: the weights are the same, bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.e2e import story
from tests.e2e.world import OPERATOR_NAMESPACE, SKILLS, World
from tests.smollm2 import smollm2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def _update(name: str) -> dict[str, Any]:
    """A short run into a repository of its own, published without serving."""
    update = story.demo_update()
    update["metadata"]["name"] = name
    spec = update["spec"]
    del spec["serving"]
    spec["model"] = {"uri": f"s3://models/{name}", "base": "s3://models/base/SmolLM2"}
    spec["skill"] = {"name": "smoke"}
    spec["data"] = {
        "train": "s3://skills/smoke/train.jsonl",
        "heldOut": {"uri": "s3://skills/smoke/heldout.jsonl", "grader": "contains"},
    }
    spec["method"] |= {"steps": 8, "batchSize": 2}
    spec["training"] = spec.get("training", {}) | {"checkpoint": {"everySteps": 4, "keep": 2}}
    spec["gates"] = {
        "inContextGain": {"mode": "Skip"},
        "newSkill": {"minGain": "0"},
        "onInconclusive": "Accept",
        "retention": {"maxDrop": "1", "minNormalized": "0"},
    }
    return update


def _kill_processes(cluster_command: str) -> int:
    """Kills, by SIGKILL, the processes in this machine's pods whose command line contains the words; returns how many.

    Only processes in a pod's cgroup count: nothing that the cluster did not start can be hit.
    """
    killed = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            in_pod = "kubepods" in (folder / "cgroup").read_text()
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


def test_killed_trainer_and_operator_end_with_the_same_weights(world: World):
    with world.storage():
        s3 = boto3.client("s3")
        for file in smollm2().iterdir():
            s3.upload_file(str(file), "models", f"base/SmolLM2/{file.name}")
    for part in ("train", "heldout"):
        world.upload(SKILLS / f"smoke/{part}.jsonl", f"smoke/{part}.jsonl")

    world.apply(_update("disturbed"))
    story.wait_for(
        world,
        "disturbed",
        lambda update: update.get("status", {}).get("training", {}).get("lastCheckpointStep", 0) >= 4,
    )
    assert _kill_processes("skill-trainer train") > 0
    story.wait_for(world, "disturbed", lambda update: update["status"].get("training", {}).get("restarts", 0) >= 1)
    assert _kill_processes("skill-operator") > 0
    world.apply(_update("undisturbed"))

    disturbed = story.settle(world, "disturbed")
    undisturbed = story.settle(world, "undisturbed")
    assert (disturbed["status"]["phase"], undisturbed["status"]["phase"]) == ("Succeeded", "Succeeded")
    assert _weights(world, "disturbed") == _weights(world, "undisturbed")
    pods = world.cluster.kubectl(
        "--namespace",
        OPERATOR_NAMESPACE,
        "get",
        "pods",
        "--output",
        "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    )
    assert any(int(count) > 0 for count in pods.split()), "the operator was killed, so its container has restarted"
