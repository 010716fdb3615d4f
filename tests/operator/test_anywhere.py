"""What a person may do at any moment: suspend and resume, delete, ask for more time; the same at every phase."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from skill_operator.actions import CreateJob
from skill_operator.api import WEIGHTS_ANNOTATION
from tests.operator import raw
from tests.operator.raw import CANDIDATE, CHILD, PARENT, PREVIOUS
from tests.operator.seen import neighbour, trained, training, truth
from tests.operator.sim import Sim

Bring = Callable[[Sim], None]


def seen_first(sim: Sim) -> None:
    sim.look()


def queued(sim: Sim) -> None:
    sim.neighbours = (neighbour(),)
    sim.settle()
    sim.neighbours = ()


def checking(sim: Sim) -> None:
    sim.settle()
    sim.pod("check", raw.running())
    sim.settle()


def starting_to_train(sim: Sim) -> None:
    sim.settle()
    sim.finish("check")
    sim.settle()


def in_training(sim: Sim) -> None:
    starting_to_train(sim)
    sim.pod("train", raw.running())
    training(sim)
    sim.settle()


def trained_unseen(sim: Sim) -> None:
    """Training has ended, and the operator has not looked since."""
    in_training(sim)
    sim.progress = None
    sim.finish("train")


def unapproved(sim: Sim) -> None:
    sim.body["spec"].setdefault("gates", {})["approval"] = "Manual"
    sim.until_published()


def rolling(sim: Sim) -> None:
    sim.until_published()


BEFORE_A_ROLLOUT: tuple[Bring, ...] = (
    seen_first, queued, checking, starting_to_train, in_training, trained_unseen, unapproved,
)  # fmt: skip
IN_A_ROLLOUT: tuple[Bring, ...] = (rolling, Sim.until_rolled, Sim.until_promoting)


def new() -> Sim:
    return Sim(deployment=raw.deployment(weights=PREVIOUS))


def carry_on(sim: Sim) -> None:
    """The world does its part until the update has ended."""
    sim.progress = None
    sim.body["spec"]["approved"] = True
    for _ in range(8):
        sim.settle()
        for step in ("check", "train", "promote"):
            if sim.has_job(step) and not sim.job(step)["status"].get("conditions"):
                sim.finish(step)
        if sim.annotation == CANDIDATE and sim.serving[0]["metadata"]["annotations"] != {WEIGHTS_ANNOTATION: CANDIDATE}:
            sim.roll()
        sim.now += 31
    sim.settle()


@pytest.mark.parametrize("bring", BEFORE_A_ROLLOUT)
def test_suspended_anywhere_before_a_rollout_it_stops_and_later_comes_to_the_same_end(bring: Bring):
    sim = new()
    bring(sim)
    sim.body["spec"]["suspend"] = True
    sim.settle()
    assert (sim.status.phase, truth(sim)["Succeeded"], sim.annotation) == ("Suspended", "Unknown", PREVIOUS)
    assert [job for job in sim.jobs.values() if not job["status"].get("conditions")] == []
    created = [action for action in sim.done if isinstance(action, CreateJob)]
    sim.now += 100_000
    assert sim.settle().requeue_after == 600
    assert [action for action in sim.done if isinstance(action, CreateJob)] == created, "nothing starts meanwhile"
    sim.body["spec"]["suspend"] = False
    carry_on(sim)
    assert (sim.status.phase, sim.annotation, truth(sim)["Ready"]) == ("Succeeded", CANDIDATE, "True")


@pytest.mark.parametrize("bring", IN_A_ROLLOUT)
def test_suspended_in_a_rollout_it_is_finished_first(bring: Bring):
    sim = new()
    bring(sim)
    sim.body["spec"]["suspend"] = True
    carry_on(sim)
    assert (sim.status.phase, sim.annotation) == ("Succeeded", CANDIDATE)


@pytest.mark.parametrize("bring", [*BEFORE_A_ROLLOUT, *IN_A_ROLLOUT, Sim.until_done])
def test_deleted_anywhere_it_starts_nothing_and_is_let_go_with_what_was_served_served(bring: Bring):
    sim = new()
    bring(sim)
    served = CANDIDATE if bring is Sim.until_done else PREVIOUS
    created = [action for action in sim.done if isinstance(action, CreateJob)]
    sim.delete()
    for _ in range(4):
        planned = sim.look(write=bool(sim.body["metadata"].get("finalizers")))
        sim.roll(digest=CHILD[1] if sim.annotation == CANDIDATE else PARENT[1])
    assert (sim.body["metadata"].get("finalizers") or [], planned.requeue_after) == ([], None)
    assert sim.annotation == served
    assert [action for action in sim.done if isinstance(action, CreateJob)] == created


@pytest.mark.parametrize("bring", BEFORE_A_ROLLOUT[:-2])
def test_deadline_that_has_grown_is_the_one_that_counts_wherever_it_grew(bring: Bring):
    sim = new()
    bring(sim)
    sim.body["spec"]["training"]["activeDeadlineSeconds"] = 100_000
    sim.progress = None
    sim.settle()
    if not sim.has_job("train"):
        sim.finish("check")
        sim.settle()
    assert sim.job("train")["spec"]["activeDeadlineSeconds"] == 100_000


def test_suspension_while_a_result_is_being_read_loses_nothing():
    """The Job was deleted in the same moment in which it ended: its last word still counts."""
    sim = trained()
    sim.finish("train")
    sim.job("train")["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    sim.body["spec"]["suspend"] = True
    sim.settle()
    assert (sim.status.phase, truth(sim)["Published"]) == ("Suspended", "True")
