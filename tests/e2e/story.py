"""The path of one skill, from an empty model repository to a served and proved version, step by step.

The demo tells it; the end-to-end tests assert on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import boto3
import yaml

from skill_store.repository import Head
from tests.e2e.world import DEMO, SKILLS, World, is_settled
from tests.smollm2 import smollm2

MODEL = "s3://models/support-llm"
Say = Callable[[str], None]


def serve_base_model(world: World) -> Head:
    """Imports SmolLM2 into the model repository and serves it; returns the repository's head."""
    with world.storage():
        repository = world.repository(MODEL)
        repository.import_base(str(smollm2()))
        head = repository.head()
    assert head is not None
    world.apply_file(DEMO / "serving.yaml")
    world.kubectl("rollout", "status", "deployment/support-llm", "--timeout=300s")
    return head


def upload_skill(world: World, skill: str) -> None:
    for name in ("train", "heldout"):
        world.upload(SKILLS / skill / f"{name}.jsonl", f"{skill}/{name}.jsonl")
    world.upload(SKILLS / "general-qa.jsonl", "general-qa.jsonl")


@dataclass(frozen=True)
class Question:
    prompt: str
    answer: str


def held_out(skill: str) -> list[Question]:
    """Returns a skill's held-out questions, one for each answer."""
    lines = map(json.loads, (SKILLS / skill / "heldout.jsonl").read_text().splitlines())
    first = {line["answer"]: line["prompt"] for line in reversed(list(lines))}
    return [Question(prompt, answer) for answer, prompt in reversed(first.items())]


def demo_update() -> dict[str, Any]:
    """The SkillUpdate of the README and of the demo."""
    update: dict[str, Any] = yaml.safe_load((DEMO / "skillupdate.yaml").read_text())
    return update


def follow(world: World, name: str, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Yields each state of an update, the settled one last."""
    for update in world.watch("skillupdate", name, timeout_s):
        yield update
        if is_settled(update):
            return


def settle(world: World, name: str, timeout_s: float = 1500) -> dict[str, Any]:
    """Waits until an update has ended and returns it."""
    *_, last = follow(world, name, timeout_s)
    return last


def wait_for(
    world: World, name: str, reached: Callable[[dict[str, Any]], bool], timeout_s: float = 900
) -> dict[str, Any]:
    """Waits until an update satisfies `reached` and returns it; fails at once where it has ended without."""
    for update in world.watch("skillupdate", name, timeout_s):
        if reached(update):
            return update
        if is_settled(update):
            raise AssertionError(f"{name} ended without what was waited for: {update['status']}")
    raise AssertionError("unreachable: watch ends by TimeoutError")


def wait_for_phase(world: World, name: str, phase: str) -> dict[str, Any]:
    """Waits until an update that has ended is in a phase that somebody has asked for since, and returns it."""
    for update in world.watch("skillupdate", name, 900):
        if update["status"]["phase"] == phase:
            return update
    raise AssertionError("unreachable: watch ends by TimeoutError")


def wait_for_result(world: World, name: str) -> dict[str, Any]:
    """Waits until an update with manual approval shows its scores, and returns it."""
    return wait_for(world, name, lambda update: update.get("status", {}).get("phase") == "AwaitingApproval")


def approve(world: World, name: str) -> None:
    world.kubectl("patch", "skillupdate", name, "--type=merge", "--patch", '{"spec":{"approved":true}}')


def seconds_back(status: dict[str, Any]) -> float:
    """Returns how long it took from the fault until all pods were back, in seconds."""
    way_back = status["rollout"]["rollback"]
    fault, end = (datetime.fromisoformat(way_back[name]) for name in ("faultAt", "finishedAt"))
    return (end - fault).total_seconds()


def quick_update(name: str) -> dict[str, Any]:
    """An update of the served model that learns nothing: one step, and gates that let everything through."""
    update = demo_update()
    update["metadata"]["name"] = name
    spec = update["spec"]
    spec["skill"] = {"name": name}
    spec["method"] |= {"steps": 1, "batchSize": 2}
    spec |= smoke()
    return update


def smoke() -> dict[str, Any]:
    """The data that `upload_smoke` brings, and gates that let everything through."""
    return {
        "data": {
            "train": "s3://skills/smoke/train.jsonl",
            "heldOut": {"uri": "s3://skills/smoke/heldout.jsonl", "grader": "contains"},
        },
        "gates": {
            "inContextGain": {"mode": "Skip"},
            "newSkill": {"minGain": "0"},
            "onInconclusive": "Accept",
            "retention": {"maxDrop": "1", "minNormalized": "0"},
        },
    }


def upload_smoke(world: World) -> None:
    """What `quick_update` trains from."""
    for part in ("train", "heldout"):
        world.upload(SKILLS / f"smoke/{part}.jsonl", f"smoke/{part}.jsonl")


def prepare_alteration(key: str) -> Callable[[], object]:
    """Returns what changes one bit of an object in the bucket `models`, in a moment; only inside `storage()`."""
    s3 = boto3.client("s3")
    content = bytearray(s3.get_object(Bucket="models", Key=key)["Body"].read())
    content[len(content) // 2] ^= 1
    s3.put_object(Bucket="models", Key=f"altered/{key}", Body=bytes(content))
    return partial(s3.copy_object, Bucket="models", Key=key, CopySource={"Bucket": "models", "Key": f"altered/{key}"})
