"""The index of updates at work: what the watch brings in, and who is whose neighbour."""

from __future__ import annotations

from typing import Any

from skill_operator.neighbours import Neighbours, of_model, of_target
from tests.operator import raw

OTHER = "s3://models/other"


def update(uid: str, uri: str = raw.MODEL, **status: Any) -> raw.Raw:
    body = raw.update(name=uid, metadata={"uid": uid}, model={"uri": uri})
    body["status"] = status
    return body


def rolling(uid: str, uri: str) -> raw.Raw:
    rollout = {"candidate": "v2@sha256:2", "startedAt": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T01:00:00Z"}
    return update(uid, uri, rollout=rollout)


def ended(uid: str, truth: str = "True") -> raw.Raw:
    return update(uid, conditions=[{"type": "Succeeded", "status": truth}, {"type": "Ready", "status": truth}])


def uids(neighbours: Neighbours, uri: str = raw.MODEL) -> list[str]:
    return sorted(one.uid for one in neighbours.of(uri))


def test_neighbours_are_of_one_model_however_it_is_written():
    neighbours = Neighbours()
    for body in (update("a"), update("b", f"{raw.MODEL}/"), update("c", OTHER)):
        neighbours.take(body)
    assert uids(neighbours) == uids(neighbours, f"{raw.MODEL}/") == ["a", "b"]
    assert uids(neighbours, OTHER) == ["c"]
    assert uids(neighbours, "s3://models/nobody") == []


def test_who_rolls_a_target_is_everybody_s_neighbour_once():
    neighbours = Neighbours()
    neighbours.take(rolling("a", raw.MODEL))
    neighbours.take(rolling("b", OTHER))
    assert uids(neighbours) == uids(neighbours, OTHER) == ["a", "b"]


def test_update_that_ends_or_goes_is_nobody_s_neighbour():
    neighbours = Neighbours()
    for body in (update("a"), rolling("b", OTHER), update("c")):
        neighbours.take(body)
    neighbours.take(ended("a", "False"))
    neighbours.drop("b")
    neighbours.drop("b")
    assert uids(neighbours) == ["c"]
    neighbours.take(ended("c"))
    assert len(neighbours) == 0
    assert (neighbours._of_model, neighbours._rolling) == ({}, {})  # nothing is kept of what has gone


def test_update_on_its_way_back_is_a_neighbour_again():
    neighbours = Neighbours()
    body = ended("a")
    body["spec"]["revert"] = True
    neighbours.take(body)
    (one,) = neighbours.of(raw.MODEL)
    assert one.is_reverting


def test_newest_word_about_an_update_counts():
    neighbours = Neighbours()
    neighbours.take(update("a"))
    neighbours.take(update("a", startTime="2026-01-01T00:00:00Z"))
    (one,) = neighbours.of(raw.MODEL)
    assert one.is_active


def test_selectors_escape_what_a_field_selector_would_take_for_its_own():
    assert of_model("s3://b/a=1,c\\d/") == (
        "spec.model.uri=s3://b/a\\=1\\,c\\\\d", "spec.model.uri=s3://b/a\\=1\\,c\\\\d/",
    )  # fmt: skip
    assert of_target("support-llm") == "spec.serving.targetRef.name=support-llm"
