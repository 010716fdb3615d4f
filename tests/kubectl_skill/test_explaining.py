"""What `explain` says, and that its words are those of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubectl_skill.explaining import Explanation, explain
from kubectl_skill.picture import picture
from kubectl_skill.reasons import all_words, plain, table
from skill_operator.api import to_rfc3339
from tests.operator import raw, test_picture
from tests.operator.raw import NOW, Raw

LATER = NOW + 600
PAGE = Path(__file__).parents[2] / "docs/troubleshooting.md"


def explained(body: Raw, pods: tuple[Raw, ...] = (), events: tuple[Raw, ...] = (), now: float = LATER) -> Explanation:
    return explain(picture(body, now), pods, events, now)


def pod(status: Raw) -> Raw:
    labels = {"sdft.dev/step": "train"}
    return {"metadata": {"name": "refund-tool-train-x", "uid": "1", "labels": labels}, "status": status}


def event(reason: str, note: str, kind: str = "Warning") -> Raw:
    return {
        "type": kind,
        "reason": reason,
        "message": note,
        "involvedObject": {"kind": "Pod", "name": "refund-tool-train-x"},
    }


def test_documentation_shows_these_words_and_no_others():
    shown = re.search(r"<!-- reasons:begin[^\n]*-->\n(.*?)<!-- reasons:end -->", PAGE.read_text(), re.DOTALL)
    assert shown, "docs/troubleshooting.md has lost its table"
    assert shown[1] == table(), "run `make reasons`"


def test_every_reason_in_every_story_has_its_words():
    for story in test_picture.STORIES:
        for body in story().shown:
            found = explained(body)
            words = all_words()[found.reason]
            assert (found.means, found.do) == (plain(words.means), plain(words.do))


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("mend `storage.secretRef`", "mend storage.secretRef"),
        ("more questions ([gates.md](gates.md))", "more questions (docs/gates.md)"),
        ("[install JobSet](multi-node.md), or", "install JobSet (docs/multi-node.md), or"),
        ("all ([serving.md](serving.md#metrics))", "all (docs/serving.md#metrics)"),
    ],
)
def test_links_become_paths(markdown: str, words: str):
    assert plain(markdown) == words


def test_no_table_cell_breaks_the_table():
    assert all("|" not in text and "\n" not in text for words in all_words().values() for text in words.dump().values())


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (raw.pod_status(phase="Pending", waiting={"reason": "ErrImagePull", "message": "no x"}), "ErrImagePull: no x"),
        (raw.ended(137, reason="OOMKilled"), "ended with exit code 137 (OOMKilled)"),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 have GPUs"}
                ],
            },
            "Unschedulable: 0/3 have GPUs",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "Evicted: disk"),
    ],
)
def test_pod_in_trouble_is_evidence(status: Raw, words: str):
    found = explained(test_picture.in_kueue().body, (pod(status),))
    assert [(e.source, e.words) for e in found.evidence] == [("train pod refund-tool-train-x", words)]


@pytest.mark.parametrize("status", [raw.running(), raw.ended(0), raw.pod_status(waiting={"reason": "PodInitializing"})])
def test_pod_that_does_well_is_none(status: Raw):
    assert explained(test_picture.in_kueue().body, (pod(status),)).evidence == ()


def test_warnings_are_told_once_and_the_newest_only():
    events = (*(event("Old", str(number)) for number in range(20)), event("FailedMount", "no secret"),
              event("FailedMount", "no secret"), event("Scheduled", "fine", "Normal"))  # fmt: skip
    found = explained(test_picture.in_kueue().body, events=events).evidence
    assert len(found) == 6
    assert [each.words for each in found].count("FailedMount: no secret") == 1


def test_an_update_that_says_nothing_hides_no_event():
    body = test_picture.in_kueue().body
    for condition in body["status"]["conditions"]:
        condition["message"] = ""
    found = explained(body, events=(event("FailedMount", "nothing is at /etc/aws"),)).evidence
    assert "FailedMount: nothing is at /etc/aws" in [each.words for each in found]


def test_update_that_nobody_has_noticed():
    new = raw.update(metadata={"creationTimestamp": to_rfc3339(LATER - 5)})
    assert explained(new).do == "wait some seconds"
    old = explained(raw.update())
    assert "no operator" in old.means
    assert "watchNamespaces" in old.do


def test_reason_of_a_newer_operator_is_owned_up_to():
    body = test_picture.rejected().body
    for condition in body["status"]["conditions"]:
        condition["reason"] = "FromTheFuture"
    assert "does not know FromTheFuture" in explained(body).means


def test_trainer_that_stands_still():
    sim = test_picture.lost_while_evaluating()
    body = next(body for body in reversed(sim.shown) if body["status"]["phase"] == "Evaluating")
    assert any("no progress for 600 s" in each.words for each in explained(body).evidence)


def test_failed_gate_says_so_and_the_report_is_named():
    sim = test_picture.rejected()
    sim.body["status"]["evaluation"]["retention"][0] |= {"verdict": "Failed", "reason": "0.71 is below 0.90"}
    found = explained(sim.body)
    assert ("gate refund-tool", "0.71 is below 0.90") in [(each.source, each.words) for each in found.evidence]
    assert "kubectl skill report refund-tool -n team" in found.commands
