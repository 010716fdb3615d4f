"""The stages of an update's life as a person counts them: which are done, which is under way, how long each took.

Pure. What a stage is follows from the milestones and documents of the status alone, never from the phase: a stage that
is new to this plugin leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from skill_contract.model import Document
from skill_operator.api import ConditionType, SkillUpdate, to_unix
from skill_operator.status import Condition, Status


class State(StrEnum):
    DONE = "Done"
    ACTIVE = "Active"
    WAITING = "Waiting"
    """Its turn, and nobody works on it."""
    FAILED = "Failed"
    AHEAD = "Ahead"
    SKIPPED = "Skipped"
    """The update has ended without it."""


class Stage(Document):
    name: str
    state: State
    seconds: float | None = None
    """How long it took, or has taken so far, with all waits in it."""
    note: str = ""


class _Fact(Document):
    """What the status says about one stage by itself."""

    name: str
    done: bool = False
    failed: bool = False
    ended: str | None = None
    note: str = ""


def stages(update: SkillUpdate, status: Status, now: float) -> tuple[Stage, ...]:
    """Returns the stages in their order; those of serving and approval only where the spec asks for them."""
    works = status.is_true(ConditionType.RECONCILING) and not status.is_true(ConditionType.QUEUED)
    begun = to_unix(status.start_time)
    is_over, found = status.is_final, list[Stage]()
    for fact in _facts(update, status):
        state = _state(fact, is_over=is_over, works=works, is_next=all(s.state is State.DONE for s in found))
        ended = to_unix(fact.ended) if fact.done or fact.failed else None
        if state in {State.ACTIVE, State.WAITING}:
            ended = now
        seconds = max(ended - begun, 0) if ended is not None and begun is not None else None
        found.append(Stage(name=fact.name, state=state, seconds=seconds, note=fact.note))
        begun = ended if ended is not None else begun
    return tuple(found)


def _state(fact: _Fact, *, is_over: bool, works: bool, is_next: bool) -> State:
    if fact.failed:
        return State.FAILED
    if fact.done:
        return State.DONE
    if is_over and fact.name != "revert":
        return State.SKIPPED
    if not is_next:
        return State.AHEAD
    return State.ACTIVE if works else State.WAITING


def _facts(update: SkillUpdate, status: Status) -> Iterator[_Fact]:
    yield _milestone("check", status.condition(ConditionType.CHECKED))
    yield _milestone("train", status.condition(ConditionType.TRAINED))
    yield _milestone("gates", status.condition(ConditionType.EVALUATED))
    published = _milestone("publish", status.condition(ConditionType.PUBLISHED))
    yield published.model_copy(update={"note": status.published.version if status.published else published.note})
    rollout = status.rollout
    if update.spec and update.spec.gates.approval == "Manual":
        went_on = rollout is not None or status.is_true(ConditionType.SUCCEEDED)
        done = published.done and (update.spec.approved or went_on)
        ended = rollout.started_at if rollout else published.ended
        yield _Fact(
            name="approve", done=done, ended=ended, note="" if done else "by a person: gates.approval is Manual"
        )
    if update.spec and update.spec.serving:
        yield from _serving(status, stays=update.spec.serving.rollback == "Manual")
    promoted = status.is_true(ConditionType.SUCCEEDED)
    failed = published.done and status.is_false(ConditionType.SUCCEEDED) and not (rollout and rollout.rollback)
    note = "the head of the repository" if promoted else status.failure.message if failed and status.failure else ""
    yield _Fact(name="promote", done=promoted, failed=failed, ended=status.completion_time, note=note)
    yield from _way_back(update, status)


def _milestone(name: str, condition: Condition | None) -> _Fact:
    if condition is None:
        return _Fact(name=name)
    return _Fact(
        name=name,
        done=condition.status == "True",
        failed=condition.status == "False",
        ended=condition.last_transition_time,
        note=condition.message,
    )


def _serving(status: Status, *, stays: bool) -> Iterator[_Fact]:
    rollout, rolled_out = status.rollout, status.condition(ConditionType.ROLLED_OUT)
    if rollout is None:
        yield _Fact(name="roll out")
        yield _Fact(name="soak")
        return
    back, verified = rollout.rollback, rollout.verified_at is not None
    pods = f"{rollout.pods_verified} pods proved" if rollout.pods_verified else ""
    if back:
        returned = "every pod is back" if back.finished_at else "stays for a person" if stays else "on its way back"
        pods = f"{back.reason}, {returned}"
    yield _Fact(
        name="roll out",
        done=verified,
        failed=back is not None and not verified,
        ended=rollout.verified_at or (back.started_at if back else None),
        note=pods,
    )
    done = rolled_out is not None and rolled_out.status == "True"
    yield _Fact(
        name="soak",
        done=done,
        failed=back is not None and verified,
        ended=rolled_out.last_transition_time if rolled_out else back.started_at if back else None,
        note=(rollout.analysis.message if rollout.analysis else pods if back else "") if verified else "",
    )


def _way_back(update: SkillUpdate, status: Status) -> Iterator[_Fact]:
    reverted = status.condition(ConditionType.REVERTED)
    wanted = update.spec is not None and update.spec.revert and status.is_true(ConditionType.SUCCEEDED)
    if reverted:
        yield _milestone("revert", reverted)
    elif wanted:
        ready = status.condition(ConditionType.READY)
        yield _Fact(name="revert", note=ready.message if ready else "")
