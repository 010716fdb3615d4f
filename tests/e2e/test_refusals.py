"""What is wrong ends within the step that found it, says why, and leaves the old weights served."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e import story
from tests.e2e.asking import asking
from tests.e2e.world import SKILLS, World, condition, fetched

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


def _served(world: World) -> set[str]:
    return {fetched(pod)["digest"] for pod in world.serving_pods()}


def _update(name: str, **data: Any) -> dict[str, Any]:
    """A small update of the served model, in one training step."""
    update = story.demo_update()
    update["metadata"]["name"] = name
    update["spec"]["skill"] = {"name": name}
    update["spec"]["data"] |= data
    update["spec"]["method"] |= {"steps": 1, "batchSize": 2}
    return update


@pytest.mark.parametrize(
    ("name", "content", "reason", "words"),
    [
        ("missing-data", None, "DataMissing", ["s3://skills/missing-data.jsonl"]),
        (
            "malformed-data",
            b'{"prompt": "Who?", "completion": "A"}\n{"prompt": 7, "completion": "B"}\n',
            "DataInvalid",
            ["line 2", "prompt"],
        ),
    ],
)
def test_bad_data_fails_in_check(world: World, name: str, content: bytes | None, reason: str, words: list[str]):
    before = _served(world)
    if content is not None:
        world.upload(content, f"{name}.jsonl")
    world.upload(SKILLS / "smoke/heldout.jsonl", "smoke/heldout.jsonl")
    held_out = {"uri": "s3://skills/smoke/heldout.jsonl", "grader": "contains"}
    world.apply(_update(name, train=f"s3://skills/{name}.jsonl", heldOut=held_out, retention=[]))

    update = story.settle(world, name, timeout_s=300)
    assert update["status"]["phase"] == "Failed"
    ready = condition(update, "Ready")
    assert (ready["status"], condition(update, "Checked")["reason"]) == ("False", reason)
    assert all(word in ready["message"] for word in words), ready["message"]
    assert condition(update, "Stalled")["status"] == "True"
    assert not world.items("jobs", f"sdft.dev/update={name},sdft.dev/step=train"), "no GPU may be asked for"
    assert _served(world) == before


def test_teacher_that_cannot_teach_is_rejected_before_training(world: World):
    """Demonstrations that say nothing about the held-out questions: no in-context gain, so no training at all."""
    before = _served(world)
    records = [
        {"prompt": f"Say word number {number}.", "completion": "Hello, and a good day to you."} for number in range(8)
    ]
    questions = [
        {"prompt": f"What is the password of vault {number}?", "completion": "I do not know.", "answer": f"zq{number}x"}
        for number in range(8)
    ]
    train = world.upload(b"\n".join(json.dumps(record).encode() for record in records), "useless/train.jsonl")
    held_out = world.upload(b"\n".join(json.dumps(record).encode() for record in questions), "useless/heldout.jsonl")
    update = _update("useless", train=train, heldOut={"uri": held_out, "grader": "contains"}, retention=[])
    update["spec"]["gates"] = {"inContextGain": {"minGain": "0.5"}}  # eight questions cannot tell less than 0.33
    world.apply(update)

    update = story.settle(world, "useless", timeout_s=600)
    assert update["status"]["phase"] == "Rejected", update["status"]
    assert condition(update, "Stalled")["reason"] == "NoInContextGain"
    assert "published" not in update["status"]
    assert _served(world) == before


def test_bytes_altered_during_a_rollout_take_it_back_and_nobody_notices(world: World):
    """The first new pod serves and is proved, the second one refuses what it fetches, and the first is taken back."""
    before = _served(world)
    story.upload_smoke(world)
    update = story.quick_update("altered")
    update["spec"]["gates"]["approval"] = "Manual"
    world.apply(update)
    version = story.wait_for_result(world, "altered")["status"]["published"]["version"]
    with world.storage(), asking(world, "support-llm") as asked:
        alter = story.prepare_alteration(f"support-llm/versions/{version}/model.safetensors")
        story.approve(world, "altered")
        story.wait_for(world, "altered", lambda seen: seen["status"].get("rollout", {}).get("podsVerified") == "1/2")
        alter()
        status = story.settle(world, "altered", timeout_s=600)["status"]
        head = world.repository(story.MODEL).head()
        assert asked.errors() == []

    assert status["phase"] == "RolledBack", status
    assert status["rollout"]["hold"]["proved"], status
    stalled = condition({"status": status}, "Stalled")
    assert stalled["reason"] == "DigestMismatch"
    assert "model.safetensors" in stalled["message"]
    assert _served(world) == before
    assert head is not None
    assert head.version != version
