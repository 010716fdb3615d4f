"""What the promote step is told to keep: the operator alone knows what is served and what others need."""

from __future__ import annotations

from skill_contract.step import Retention
from tests.operator import raw
from tests.operator.seen import neighbour, promote_config, served
from tests.operator.sim import Sim

TARGET = "team/Deployment/support-llm"
OTHER_TARGET = "team/Deployment/research-llm"


def promoting(**model: object) -> Sim:
    sim = Sim(raw.update(model=model), deployment=raw.deployment())
    sim.until_rolled()
    sim.now += 31
    return sim


def test_without_a_number_nothing_is_to_be_removed():
    sim = served()
    sim.until_rolled()
    sim.now += 31
    sim.settle()
    assert promote_config(sim).retention is None


def test_what_is_served_and_what_others_need_stays():
    sim = promoting(keepVersions=3)
    was_served = {"stands_aside": True, "promoted_from": "sha256:1"}
    sim.neighbours = (
        neighbour(
            uid="old", leaves=(OTHER_TARGET, "000003-333333333333"), promoted_at="2026-01-01T00:00:00Z", **was_served
        ),
        neighbour(
            uid="new", leaves=(OTHER_TARGET, "000004-444444444444"), promoted_at="2026-02-01T00:00:00Z", **was_served
        ),
        neighbour(uid="reverted", stands_aside=True, took_back="sha256:2"),
        neighbour(uid="waits", stands_aside=True, holds=("000005-555555555555",)),
        neighbour(uid="elsewhere", model="s3://models/other", holds=("000006-666666666666",)),
    )
    sim.settle()
    assert (
        promote_config(sim).retention.dump()
        == Retention(
            keep_versions=3,
            in_use=("000004-444444444444", "000005-555555555555", raw.CHILD[0]),
            updates=("waits",),
        ).dump()
    )


def test_nothing_is_removed_on_the_way_back():
    sim = promoting(keepVersions=2)
    sim.settle()
    sim.finish("promote")
    sim.settle()
    sim.body["spec"]["revert"] = True
    sim.settle()
    assert promote_config(sim, "revert").retention is None
