"""A served model learns a skill, then another one, and forgets nothing unnoticed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e import story
from tests.e2e.asking import asking
from tests.e2e.world import World, condition, fetched

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_first_skill_is_served_and_proved(world: World, first_skill: dict[str, Any]):
    status = first_skill["status"]
    assert status["phase"] == "Succeeded", status
    assert world.kubectl("wait", "--for=condition=Ready", "skillupdate/velmora", "--timeout=5s")
    row = world.kubectl("get", "skillupdate/velmora").splitlines()[1].split()
    assert row[:2] == ["velmora", "Succeeded"]

    with world.storage():
        repository = world.repository(story.MODEL)
        head, lineage = repository.head(), list(repository.lineage())
    assert head is not None
    versions = [ref.version for ref, _ in lineage]
    assert versions[-1].startswith("000000-"), versions
    assert status["published"]["version"] in versions

    candidate = status["published"]
    assert status["rollout"]["podsVerified"] == "2/2"
    assert status["evaluation"]["verdict"] == "Passed"
    assert float(status["evaluation"]["newSkill"]["gain"]) > 0
    reasons = {
        event["reason"] for event in world.items("events.events.k8s.io") if event["regarding"]["name"] == "velmora"
    }
    assert {
        "Checked",
        "TrainingStarted",
        "GatePassed",
        "VersionPublished",
        "RolloutStarted",
        "PodVerified",
        "Promoted",
    } <= reasons
    assert condition(first_skill, "RolledOut")["status"] == "True"
    assert candidate["digest"].startswith("sha256:")


def test_served_model_answers_what_it_could_not_before(world: World, first_skill: dict[str, Any]):
    """Held-out questions that the report calls learned are answered rightly by the pods that serve."""
    published = first_skill["status"]["published"]
    with world.storage():
        report = world.repository(story.MODEL).run(first_skill["metadata"]["uid"]).get("report.json")
    assert report is not None
    learned = [
        answer
        for answer in json.loads(report)["answers"]
        if answer["suite"] == "velmora" and answer["rightAfter"] and not answer["rightBefore"]
    ]
    assert learned, f"{published['version']} learned nothing that can be asked for"
    # The head may have moved on to a later skill by now; what was learned must still be there in most cases.
    asked = learned[:5]
    right = [answer["expected"].lower() in world.ask(answer["prompt"]).lower() for answer in asked]
    assert sum(right) > len(asked) / 2, [(answer["prompt"], world.ask(answer["prompt"])) for answer in asked]


def test_second_skill_stands_on_the_first_and_nobody_notices_its_rollout(world: World, first_skill: dict[str, Any]):
    story.upload_skill(world, "tarn-oake")
    with world.storage():
        before = world.repository(story.MODEL).head()
    assert before is not None
    update = story.demo_update()
    update["metadata"]["name"] = "tarn-oake"
    update["spec"]["skill"] = {"name": "tarn-oake", "description": "Knows the company Tarn & Oake"}
    update["spec"]["data"]["train"] = "s3://skills/tarn-oake/train.jsonl"
    update["spec"]["data"]["heldOut"]["uri"] = "s3://skills/tarn-oake/heldout.jsonl"
    update["spec"]["method"] |= {"optimizer": {"learningRate": "6e-5"}, "steps": 28}
    # Wide: fifty questions of the first skill leave an interval of more than 0.1 on each side (docs/evidence.md).
    update["spec"]["gates"] = {"approval": "Manual", "retention": {"maxDrop": "0.35", "minNormalized": "0.5"}}
    world.apply(update)
    story.wait_for_result(world, "tarn-oake")
    with asking(world, "support-llm") as asked:
        story.approve(world, "tarn-oake")
        status = story.settle(world, "tarn-oake")["status"]
        assert asked.errors() == []

    assert status["phase"] == "Succeeded", status
    assert status["parent"]["digest"] == before.digest
    assert {row["suite"] for row in status["evaluation"]["retention"]} == {"velmora", "general-qa"}
    for pod in world.serving_pods():
        assert fetched(pod)["digest"] == status["published"]["digest"]
