"""The index of updates at work: what the watch brings in, and who is whose neighbour."""

from __future__ import annotations

from typing import Any

import pytest

from skill_operator.neighbours import Neighbours, neighbour, of_model, of_target
from tests.operator import raw
from tests.operator.raw import CANDIDATE

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


def test_promoted_update_stays_a_neighbour_because_it_has_moved_the_head():
    neighbours = Neighbours()
    body = ended("a")
    body["status"]["parent"] = {"version": raw.PARENT[0], "digest": raw.PARENT[1]}
    body["status"]["conditions"].append({"type": "RolledOut", "status": "True"})
    neighbours.take(body)
    (one,) = neighbours.of(raw.MODEL)
    assert (one.promoted_from, one.stands_aside) == (raw.PARENT[1], True)


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


@pytest.mark.parametrize(
    ("status", "active"),
    [
        ({}, False),
        ({"startTime": "2026-01-01T00:00:00Z"}, True),
        ({"startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "True"}]}, False),
        ({"startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Queued", "status": "True"}]}, False),
    ],
)
def test_neighbour_is_active_once_it_has_left_the_queue(status: raw.Raw, *, active: bool):
    assert neighbour(raw.update() | {"status": status}).is_active == active


def test_suspended_neighbour_keeps_its_turn_while_it_rolls():
    rolling = {"rollout": {"candidate": "x", "startedAt": "t", "deadline": "t"}}
    suspended = raw.update(suspend=True)
    assert neighbour(suspended).stands_aside
    assert not neighbour(suspended | {"status": rolling}).stands_aside


def test_neighbour_names_the_target_that_it_rolls():
    rolling = {"rollout": {"candidate": "x", "startedAt": "t", "deadline": "t"}}
    assert neighbour(raw.update() | {"status": rolling}).rolling == "team/Deployment/support-llm"
    over = rolling | {"conditions": [{"type": "Succeeded", "status": "True"}]}
    assert neighbour(raw.update() | {"status": over}).rolling == ""


def test_update_that_goes_back_is_rolling_again():
    over = {
        "startTime": "2026-01-01T00:00:00Z",
        "rollout": {"candidate": CANDIDATE, "startedAt": "", "deadline": ""},
        "conditions": [{"type": "Succeeded", "status": "True"}],
    }
    back = neighbour(raw.update(revert=True) | {"status": over})
    assert (back.rolling, back.is_reverting, back.is_active) == ("team/Deployment/support-llm", True, True)
    over["conditions"].append({"type": "Reverted", "status": "True"})
    assert neighbour(raw.update(revert=True) | {"status": over}).rolling == ""


def with_versions(uid: str, *, promoted: str = "", rollout: bool = True, **status: Any) -> raw.Raw:
    body = raw.update(name=uid, metadata={"uid": uid}, serving={"targetRef": {"name": "support-llm"}})
    body["status"] = {
        "parent": dict(zip(("version", "digest"), raw.PARENT, strict=True)),
        "published": {"version": raw.CHILD[0], "digest": raw.CHILD[1], "uri": f"{raw.MODEL}/versions/{raw.CHILD[0]}"},
        **status,
    }
    if rollout:
        times = {"startedAt": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T01:00:00Z"}
        body["status"]["rollout"] = {
            "candidate": CANDIDATE,
            "previous": f"{raw.MODEL}/versions/000007-cccccccccccc@x",
        } | times
    if promoted:
        truths = [
            {"type": kind, "status": "True", "lastTransitionTime": promoted} for kind in ("RolledOut", "Succeeded")
        ]
        body["status"]["conditions"] = truths
    return body


def test_what_is_at_work_holds_its_versions():
    one = neighbour(with_versions("a"))
    assert set(one.holds) == {raw.PARENT[0], raw.CHILD[0], "000007-cccccccccccc"}
    assert one.leaves == ("", "")
    assert neighbour(update("b")).holds == ()


def test_what_has_ended_holds_only_what_it_has_left_to_be_served():
    one = neighbour(with_versions("a", promoted="2026-01-01T00:00:00Z"))
    assert (one.holds, one.leaves) == ((), ("team/Deployment/support-llm", raw.CHILD[0]))
