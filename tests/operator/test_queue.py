"""The queue of a model repository: who waits, who stands aside, and who was overtaken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from skill_contract.outcome import Result
from skill_contract.step import Step
from skill_operator.actions import CreateJob, Refusal
from skill_operator.api import Reason, to_rfc3339
from skill_operator.neighbours import is_neighbour
from skill_operator.neighbours import neighbour as seen_by_others
from skill_operator.observed import Neighbour
from tests.operator import raw
from tests.operator.raw import CANDIDATE, CHILD, PARENT
from tests.operator.seen import assert_failed, neighbour, trained, truth, why
from tests.operator.sim import Sim


def _as_others_see(sim: Sim) -> dict[str, bool | str]:
    seen = seen_by_others(sim.body)
    return {"aside": seen.stands_aside, "active": seen.is_active, "from": seen.promoted_from}


def _unreadable() -> Sim:
    sim = Sim(raw.update(method={"batchSize": "many"}))
    sim.settle()
    return sim


def _unapproved() -> Sim:
    sim = Sim(raw.update(gates={"approval": "Manual"}, serving=False))
    sim.until_published()
    return sim


def _without_target() -> Sim:
    sim = Sim()
    sim.until_published()
    return sim


def _without_default() -> Sim:
    deployment = raw.deployment()
    del deployment["spec"]["template"]["spec"]["initContainers"][0]["env"][0]
    sim = Sim(deployment=deployment)
    sim.until_published()
    return sim


def _suspended() -> Sim:
    sim = trained()
    sim.body["spec"]["suspend"] = True
    sim.settle()
    return sim


def _refused() -> Sim:
    sim = Sim()
    sim.refuse[CreateJob] = Refusal(CreateJob({}), Reason.CREATE_REFUSED, "exceeded quota")
    sim.settle()
    return sim


@pytest.mark.parametrize(
    ("waits", "reason"),
    [
        (_unreadable, "InvalidSpec"),
        (_unapproved, "AwaitingApproval"),
        (_without_target, "TargetMissing"),
        (_without_default, "NoPrevious"),
        (_suspended, "Suspended"),
        (_refused, "CreateRefused"),
    ],
)
def test_update_that_waits_for_a_person_lets_others_pass(waits: Callable[[], Sim], reason: str):
    sim = waits()
    assert why(sim)[0] == reason
    assert _as_others_see(sim)["aside"] is True


def test_update_at_work_or_in_line_does_not_stand_aside():
    sim = trained()
    assert _as_others_see(sim) == {"aside": False, "active": True, "from": ""}
    queued = Sim()
    queued.neighbours = (neighbour(),)
    queued.settle()
    assert _as_others_see(queued) == {"aside": False, "active": False, "from": ""}


def test_approved_update_goes_on_without_waiting_for_those_that_passed_it():
    sim = Sim(raw.update(gates={"approval": "Manual"}), raw.deployment())
    sim.until_published()
    sim.neighbours = (neighbour(is_active=True, created="2040-01-01T00:00:00Z"),)
    sim.body["spec"]["approved"] = True
    sim.settle()
    assert sim.annotation == CANDIDATE


def test_promoted_update_has_moved_the_head_until_it_is_reverted():
    sim = Sim(deployment=raw.deployment())
    sim.until_done()
    assert is_neighbour(sim.body)
    assert _as_others_see(sim) == {"aside": True, "active": True, "from": PARENT[1]}
    sim.body["spec"]["revert"] = True
    sim.settle()
    sim.finish("revert")
    sim.settle()
    sim.roll(digest=PARENT[1])
    sim.settle()
    assert sim.status.phase == "Reverted"
    assert is_neighbour(sim.body), "who trains from its version has to hear of it"
    assert _as_others_see(sim)["from"] == ""
    seen = seen_by_others(sim.body)
    assert (seen.took_back, seen.took_back_at, seen.has_ended) == (CHILD[1], to_rfc3339(sim.now), True)


def test_failed_update_is_nobody_s_neighbour():
    sim = trained()
    sim.fail("train", raw.ended(1))
    sim.settle()
    assert not is_neighbour(sim.body)


LATER = "2040-01-01T00:00:00Z"
PROMOTED = neighbour(is_active=True, stands_aside=True, promoted_from=PARENT[1], promoted_at=LATER)
REVERTED = neighbour(is_active=True, stands_aside=True, took_back=PARENT[1], took_back_at=LATER)


@pytest.mark.parametrize(
    "overtaken", [trained, _unapproved, _without_target], ids=["training", "unapproved", "stalled"]
)
@pytest.mark.parametrize(
    ("other", "what"), [(PROMOTED, "was promoted"), (REVERTED, "was reverted")], ids=["promoted", "reverted"]
)
def test_update_from_whose_parent_another_one_has_moved_the_head_ends_at_once(
    overtaken: Callable[[], Sim], other: Neighbour, what: str
):
    sim = overtaken()
    sim.neighbours = (other,)
    sim.settle()
    assert_failed(sim, "Failed", "HeadMoved", "team/other", what, PARENT[0], "new SkillUpdate")
    running = [job for job in sim.jobs.values() if not job["status"].get("conditions")]
    assert running == [], "what trains in vain gives its GPUs back"


def test_resumed_update_that_was_overtaken_does_not_train_again():
    sim = _suspended()
    sim.neighbours = (PROMOTED,)
    sim.settle()
    assert sim.status.phase == "Suspended", "it is not looked after while it is suspended"
    sim.body["spec"]["suspend"] = False
    sim.settle()
    assert_failed(sim, "Failed", "HeadMoved")
    assert not sim.has_job("train")


@pytest.mark.parametrize(
    "other",
    [
        neighbour(is_active=True, stands_aside=True, promoted_from="sha256:" + "f" * 64, promoted_at=LATER),
        neighbour(
            is_active=True, stands_aside=True, promoted_from=PARENT[1], promoted_at=LATER, model="s3://models/another"
        ),
        neighbour(is_active=True, stands_aside=True, promoted_from=PARENT[1], promoted_at=LATER, uid=raw.UID),
        neighbour(is_active=True, stands_aside=True, promoted_from=PARENT[1], promoted_at="2020-01-01T00:00:00Z"),
        neighbour(is_active=True, stands_aside=True, took_back=PARENT[1], took_back_at="2020-01-01T00:00:00Z"),
        neighbour(is_active=True, stands_aside=True, took_back="sha256:" + "f" * 64, took_back_at=LATER),
    ],
    ids=[
        "from another parent",
        "of another model",
        "itself",
        "before this one began, in a repository made anew",
        "reverted and promoted again before this one began",
        "another version reverted",
    ],
)
def test_promotion_that_concerns_others_overtakes_nobody(other: object):
    sim = trained()
    sim.neighbours = (other,)
    sim.finish("train")
    sim.settle()
    assert truth(sim)["Published"] == "True"


def test_once_it_is_asked_the_promote_step_decides_who_was_faster():
    sim = trained()
    sim.finish("train")
    sim.settle()
    assert sim.has_job("promote")
    sim.neighbours = (PROMOTED,)
    sim.settle()
    assert truth(sim)["Succeeded"] == "Unknown"
    sim.finish("promote")
    sim.settle()
    assert sim.status.phase == "Succeeded"


def test_rejection_says_more_than_that_it_was_overtaken():
    sim = trained()
    sim.finish("train", raw.outcome(Step.TRAIN, Result.REJECTED, "SkillForgotten"))
    sim.neighbours = (PROMOTED,)
    sim.settle()
    assert_failed(sim, "Rejected", "SkillForgotten")
