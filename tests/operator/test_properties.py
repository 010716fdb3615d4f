"""What holds for every update in every world: plans at rest, good conditions, ends that stay, harmless crashes."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skill_contract.outcome import Result
from skill_contract.step import Step
from skill_operator.actions import CreateJob, DeleteJob
from skill_operator.api import MILESTONES, ConditionType, Phase
from tests.operator import raw
from tests.operator.picture import assert_drawn
from tests.operator.sim import Sim

Event = Callable[[Sim], None]


def _finish(step: Step, result: Result, reason: str) -> Event:
    def event(sim: Sim) -> None:
        if sim.has_job(step) and not sim.job(step)["status"].get("conditions"):
            sim.finish(step, raw.outcome(step, result, reason))

    return event


def _crash(step: Step, code: int, *, over: bool) -> Event:
    def event(sim: Sim) -> None:
        if not sim.has_job(step) or sim.job(step)["status"].get("conditions"):
            return
        if over:
            sim.fail(step, raw.ended(code, "crash"))
        else:
            sim.pod(step, raw.ended(code, "crash"))
            sim.job(step)["status"] = {"failed": 1, "active": 1}

    return event


def _adopt(sim: Sim) -> None:
    if sim.has_job("check") and not sim.job("check")["status"].get("conditions"):
        sim.finish("check", raw.adopted())


def _lose_pods(sim: Sim) -> None:
    sim.pods.clear()


def _roll(**pods: object) -> Event:
    def event(sim: Sim) -> None:
        rolled = sim.status.rollout is not None and sim.annotation == sim.status.rollout.candidate
        sim.roll(digest=raw.CHILD[1] if rolled else raw.PARENT[1], **(pods if rolled else {}))

    return event


def _first(**pod: object) -> Event:
    """The controller makes the first new pod, beside the old ones."""

    def event(sim: Sim) -> None:
        rolling = sim.status.rollout is not None and sim.annotation == sim.status.rollout.candidate
        if rolling and not any(each["metadata"]["name"].endswith("-9") for each in sim.serving):
            sim.roll_first(**pod)

    return event


def _prove(result: Result, reason: str) -> Event:
    def event(sim: Sim) -> None:
        if sim.has_job("prove") and not sim.job("prove")["status"].get("conditions"):
            sim.finish("prove", raw.outcome(Step.PROMOTE, result, reason))

    return event


def _let_go_on(sim: Sim) -> None:
    """`kubectl rollout resume`."""
    if sim.deployment and sim.deployment["spec"].get("paused"):
        sim.deployment["spec"]["paused"] = False
        sim.deployment["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"].pop("f:paused")


def _later(seconds: int) -> Event:
    def event(sim: Sim) -> None:
        sim.now += seconds

    return event


def _switch(field: str) -> Event:
    def event(sim: Sim) -> None:
        sim.body["spec"][field] = not sim.body["spec"].get(field, False)
        sim.body["metadata"]["generation"] += 1

    return event


def _erase(sim: Sim) -> None:
    """Somebody erases the status of a running update by hand."""
    if not sim.status.is_final:
        sim.body["status"] = {}
        sim.phases.clear()


EVENTS: dict[str, Event] = {
    "check ends well": _finish(Step.CHECK, Result.SUCCEEDED, ""),
    "already applied": _finish(Step.CHECK, Result.SUCCEEDED, "AlreadyApplied"),
    "adopted": _adopt,
    "training ends well": _finish(Step.TRAIN, Result.SUCCEEDED, ""),
    "training is rejected": _finish(Step.TRAIN, Result.REJECTED, "SkillForgotten"),
    "promotion ends well": _finish(Step.PROMOTE, Result.SUCCEEDED, ""),
    "promotion is rejected": _finish(Step.PROMOTE, Result.REJECTED, "OutputMismatch"),
    "check crashes": _crash(Step.CHECK, 1, over=True),
    "a trainer pod crashes": _crash(Step.TRAIN, 1, over=False),
    "a trainer pod runs out of memory": _crash(Step.TRAIN, 137, over=False),
    "promotion crashes": _crash(Step.PROMOTE, 1, over=True),
    "pods are collected": _lose_pods,
    "pods roll": _roll(),
    "a fetch fails": _roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False),
    "the first new pod is there": _first(),
    "the first new pod cannot fetch": _first(message=raw.fetch_failed("NoSpace"), fetch_code=1, ready=False),
    "the first new pod is proved": _prove(Result.SUCCEEDED, "Proved"),
    "the first new pod is refuted": _prove(Result.REJECTED, "OutputMismatch"),
    "the hold is ended by hand": _let_go_on,
    "a minute passes": _later(60),
    "an hour passes": _later(3600),
    "suspend": _switch("suspend"),
    "revert": _switch("revert"),
    "status erased": _erase,
    "deleted": Sim.delete,
}


STARTS: dict[str, Event] = {
    "nothing": Sim.settle,
    "published": Sim.until_published,
    "held": Sim.until_held,
    "rolled": Sim.until_rolled,
    "promoting": Sim.until_promoting,
    "done": Sim.until_done,
}


def assert_well_formed(sim: Sim) -> None:
    conditions = {condition.type: condition for condition in sim.status.conditions}
    assert len(conditions) == len(sim.status.conditions)
    assert {"Ready", "Succeeded"} <= set(conditions)
    assert sim.status.phase in set(Phase)
    for kind, condition in conditions.items():
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", condition.reason), condition
        assert condition.last_transition_time
        assert condition.observed_generation <= sim.body["metadata"]["generation"]
        if kind not in {ConditionType.READY, ConditionType.SUCCEEDED, *MILESTONES}:
            assert condition.status == "True", f"{kind} is there only while true"
    if conditions["Ready"].status == "True":
        assert {"Stalled", "Reconciling"}.isdisjoint(conditions)
    assert not {"Stalled", "Reconciling"} <= set(conditions)


@settings(max_examples=120, deadline=None)
@given(
    start=st.sampled_from(sorted(STARTS)),
    events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=10),
    previous=st.sampled_from(["", raw.PREVIOUS]),
    serving=st.booleans(),
    manual=st.booleans(),
)
def test_any_world_is_lived_through(start: str, events: list[str], previous: str, serving: bool, manual: bool):
    body = raw.update(serving=serving)
    if serving:
        body["spec"]["serving"]["rollback"] = "Manual" if manual else "Automatic"
    sim = Sim(body, raw.deployment(weights=previous))
    final: str | None = None
    STARTS[start](sim)
    published = sim.status.published is not None
    for name in events:
        EVENTS[name](sim)
        sim.settle()
        assert_well_formed(sim)
        assert_drawn(sim)
        before = copy.deepcopy(sim.body)
        again = sim.plan()
        assert (again.actions, dict(again.status)) == ((), before["status"]), f"after {name}, not at rest"
        succeeded = sim.status.condition("Succeeded")
        assert succeeded is not None
        if final and not sim.body["metadata"].get("deletionTimestamp"):
            assert succeeded.status == final, "what is final stays"
        final = succeeded.status if sim.status.is_final else None
        published = published or sim.status.published is not None  # an erased status may have to learn it anew
        assert published or sim.annotation != raw.CANDIDATE, "nothing is served that was not published"
        is_paused = sim.deployment and sim.deployment["spec"].get("paused")
        assert not (sim.status.is_final and is_paused), "whatever ends a rollout ends its hold"


def _check(sim: Sim) -> None:
    sim.finish("check")


def _train(sim: Sim) -> None:
    sim.finish("train")


def _bad(sim: Sim) -> None:
    sim.roll(message=raw.fetch_failed("DigestMismatch"), fetch_code=1, ready=False)


def _good(sim: Sim) -> None:
    sim.roll()


def _back(sim: Sim) -> None:
    sim.roll(digest=raw.PARENT[1])


def _soaked(sim: Sim) -> None:
    sim.now += 31


def _promote(sim: Sim) -> None:
    sim.finish("promote")


def _revert(sim: Sim) -> None:
    sim.body["spec"]["revert"] = True


def _reverted(sim: Sim) -> None:
    sim.finish("revert")


_HELD: list[Event] = [_first(), _prove(Result.SUCCEEDED, "Proved")]
STORIES: dict[str, list[Event]] = {
    "Succeeded": [_check, _train, *_HELD, _good, _soaked, _promote],
    "RolledBack": [_check, _train, *_HELD, _bad, _back],
    "Reverted": [_check, _train, *_HELD, _good, _soaked, _promote, _revert, _reverted, _back],
}


def play(story: list[Event], crash_at: int | None = None) -> tuple[Sim, int]:
    """Lives through a story; the operator dies after the actions of one pass, before it writes the status."""
    sim, passes = Sim(deployment=raw.deployment(weights=raw.PREVIOUS)), 0

    def settle() -> None:
        nonlocal passes
        for _ in range(40):
            before = copy.deepcopy(sim.body), len(sim.done)
            write = passes != crash_at
            sim.look(write=write)
            passes += 1
            if write and (sim.body, len(sim.done)) == before:
                return
        raise AssertionError("no rest")

    settle()
    for event in story:
        event(sim)
        settle()
    return sim, passes


@pytest.mark.parametrize("end", STORIES)
def test_operator_that_dies_in_any_pass_changes_nothing(end: str):
    calm, passes = play(STORIES[end])
    assert calm.status.phase == end
    for crash_at in range(passes):
        disturbed, _ = play(STORIES[end], crash_at)
        assert disturbed.status.phase == end, f"after a crash in pass {crash_at}"
        assert disturbed.annotation == calm.annotation
        assert set(disturbed.jobs) == set(calm.jobs), "no step ran twice"
        assert [s.type for s in disturbed.status.conditions] == [s.type for s in calm.status.conditions]
        assert not disturbed.body["metadata"].get("finalizers")


def test_training_is_started_once_and_stopped_only_on_demand():
    calm, _ = play(STORIES["Succeeded"])
    created = [action.name for action in calm.done if isinstance(action, CreateJob)]
    assert len(created) == len(set(created)) == 4
    assert not any(isinstance(action, DeleteJob) for action in calm.done)
