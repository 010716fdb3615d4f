"""Events: each news once, in the words of the API document."""

from __future__ import annotations

from skill_contract.outcome import Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import Step
from skill_operator.actions import News
from skill_operator.api import parse
from skill_operator.reconcile import _event_name
from tests.operator import raw
from tests.operator.sim import Sim


class Told(Sim):
    """A world that remembers what was told."""

    def __init__(self, *args, **kwargs) -> None:
        self.told: list[str] = []
        super().__init__(*args, **kwargs)

    def look(self, *, write: bool = True):
        planned = super().look(write=write)
        self.told += [news.reason for news in planned.news]
        return planned


def test_straight_life_is_told_in_order():
    sim = Told(deployment=raw.deployment())
    sim.settle()
    sim.finish("check")
    sim.settle()
    sim.pod("train", raw.running())
    sim.progress = Progress(stage=Stage.TRAINING, step=60, total=100, last_checkpoint=50, heartbeat=sim.now)
    sim.settle()
    sim.settle()
    sim.finish("train")
    sim.settle()
    sim.roll()
    sim.settle()
    sim.now += 31
    sim.settle()
    sim.finish("promote")
    sim.settle()
    assert sim.told == [
        "Checked", "TrainingStarted", "CheckpointSaved", "GatePassed", "VersionPublished", "CheckpointSaved",
        "RolloutStarted", "PodVerified", "NotHeld", "Promoted",
    ]  # fmt: skip


def test_rejection_and_rollback_are_warnings_with_their_reasons():
    sim = Told()
    sim.settle()
    sim.finish("check")
    sim.settle()
    sim.finish("train", raw.outcome(Step.TRAIN, Result.REJECTED, "SkillForgotten"))
    sim.settle()
    assert sim.told == ["Checked", "TrainingStarted", "GateRejected", "SkillForgotten"]
    sim = Told(deployment=raw.deployment())
    sim.until_published()
    sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)
    sim.settle()
    sim.roll(digest=raw.PARENT[1])
    sim.settle()
    assert sim.told[-2:] == ["RollbackStarted", "RolledBack"]


def test_preemption_and_restart_are_told_and_the_new_attempt_says_where_it_goes_on():
    sim = Told(raw.update(serving=False))
    sim.settle()
    sim.finish("check")
    sim.settle()
    first = sim.pod("train", raw.running())
    sim.progress = Progress(stage=Stage.TRAINING, step=60, total=100, last_checkpoint=50, heartbeat=sim.now)
    sim.settle()
    first["status"] = raw.ended(75)
    sim.pod("train", raw.running())
    sim.settle()
    assert sim.told[-2:] == ["Preempted", "Resumed"]


def test_queue_and_suspension_are_told():
    sim = Told()
    sim.body["spec"]["suspend"] = True
    sim.settle()
    assert sim.told == ["Suspended"]


def test_milestone_is_the_same_news_in_whatever_words():
    """A promote step that runs again says that the head is there already."""
    update = parse(raw.update())

    def names(*, once: bool) -> set[str]:
        return {_event_name(update, News("Promoted", words, once=once)) for words in ("is the head", "is it already")}

    assert (len(names(once=True)), len(names(once=False))) == (1, 2)
    sim = Told(deployment=raw.deployment())
    sim.until_published()
    sim.roll()
    sim.body["status"] = {}
    told_again = {news.reason for news in sim.look(write=False).news if news.once}
    assert {"Checked", "GatePassed", "VersionPublished"} <= told_again
