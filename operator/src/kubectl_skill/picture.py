"""Where an update stands, as one document: what `status` draws, and what `status -o json` prints.

Pure: the same object and clock give the same picture. Everything in it comes from the object's own spec and status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field

from kubectl_skill.stages import Stage, stages
from skill_contract.evaluation import Evaluation
from skill_contract.model import Document
from skill_operator import status as statuses
from skill_operator.api import ConditionType, Phase, Reason, SkillUpdate, parse, to_rfc3339, to_unix
from skill_operator.status import Failure, Rollout, Status, Training

Raw = Mapping[str, Any]
Body = dict[str, Any]
"""A SkillUpdate as the API server sends it."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Words of pods and models must not move the cursor, colour the screen or turn the line round."""
_MARKS = (
    ConditionType.NOT_WIRED, ConditionType.SHARED_KV_CACHE, ConditionType.TARGET_BUSY, ConditionType.SURGE_BLOCKED,
    ConditionType.GITOPS_CONFLICT,
)  # fmt: skip


class Tone(StrEnum):
    """What a person has to know first."""

    GOOD = "Good"
    BUSY = "Busy"
    """Work goes on by itself."""
    WAITING = "Waiting"
    """Nobody works on it: for its turn, or for a person who asked for that."""
    BAD = "Bad"
    """It ended badly, or needs a person."""


class Mark(Document):
    """A condition that is there only while something is in the way."""

    type: str
    message: str


class Picture(Document):
    namespace: str
    name: str
    uid: str
    skill: str = ""
    model: str = ""
    target: str = ""
    """Kind and name of the serving workload; empty where the update only publishes."""
    phase: str
    tone: Tone
    reason: str
    message: str
    created: str
    completed: str = ""
    """When it ended, well or not."""
    final: bool
    progress: str = ""
    stages: tuple[Stage, ...] = ()
    marks: tuple[Mark, ...] = ()
    parent: str = ""
    version: str = ""
    """That this update published."""
    training: Training | None = None
    evaluation: Evaluation | None = None
    rollout: Rollout | None = None
    soak_until: str | None = None
    failure: Failure | None = None
    gpu_seconds: int | None = None
    next: tuple[str, ...] = Field(default=())
    """Commands that fit where it stands, the likeliest first."""

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.name}"


def clean(value: Any) -> Any:
    """Returns raw JSON without characters that would act on a terminal."""
    if isinstance(value, str):
        return _CONTROL.sub("�", value.replace("\r\n", "\n"))
    if isinstance(value, Mapping):
        return {clean(key): clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [clean(inner) for inner in value]
    return value


def picture(body: Raw, now: float) -> Picture:
    """Returns where a raw SkillUpdate stands.

    Args:
        now: Unix seconds, for what is under way.
    """
    update = parse(clean(body))
    status = statuses.read(update.status)
    ready = status.condition(ConditionType.READY)
    spec, serving = update.spec, update.spec.serving if update.spec else None
    return Picture(
        namespace=update.namespace,
        name=update.name,
        uid=update.uid,
        skill=spec.skill.name if spec else "",
        model=spec.model.uri if spec else "",
        target=serving.target_ref.title if serving else "",
        phase=status.phase or Phase.PENDING,
        tone=_tone(status),
        reason=ready.reason if ready else "",
        message=ready.message if ready else "no operator has taken note of it yet",
        created=update.created,
        completed=status.completion_time or "" if status.is_final else "",
        final=status.is_final,
        progress=status.progress or "",
        stages=stages(update, status, now),
        marks=tuple(Mark(type=c.type, message=c.message) for c in status.conditions if c.type in _MARKS),
        parent=status.parent.version if status.parent else "",
        version=status.published.version if status.published else "",
        training=status.training,
        evaluation=status.evaluation,
        rollout=status.rollout,
        soak_until=_soak_until(update, status),
        failure=status.failure,
        gpu_seconds=status.gpu_seconds,
        next=_next(update, status),
    )


def _tone(status: Status) -> Tone:
    if status.is_true(ConditionType.STALLED):
        return Tone.BAD
    if status.is_true(ConditionType.READY):
        return Tone.GOOD
    if status.is_true(ConditionType.RECONCILING) and status.phase != Phase.QUEUED:
        return Tone.BUSY
    return Tone.WAITING


def _soak_until(update: SkillUpdate, status: Status) -> str | None:
    """Returns when the soak is over at the earliest; None where there is none under way."""
    verified = to_unix(status.rollout.verified_at) if status.rollout else None
    if verified is None or status.is_final or update.spec is None or update.spec.serving is None:
        return None
    return to_rfc3339(verified + update.spec.serving.soak_seconds)


def _next(update: SkillUpdate, status: Status) -> tuple[str, ...]:
    """Returns the commands that fit, to be copied as they are."""
    judged = ("report",) if status.evaluation else ()
    match status.phase:
        case Phase.AWAITING_APPROVAL:
            words: tuple[str, ...] = (*judged, "approve")
        case Phase.REVERTING if not status.is_true(ConditionType.STALLED):
            words = ("watch",)
        case Phase.SUSPENDED:
            words = ("resume",)
        case Phase.SUCCEEDED if status.is_true(ConditionType.READY):
            words = (*judged, "revert") if status.rollout else judged
        case Phase.SUCCEEDED if status.condition(ConditionType.REVERTED):
            words = ("explain", "revert --cancel")
        case Phase.REVERTED:
            words = judged
        case _ if status.is_final or status.is_true(ConditionType.STALLED):
            words = ("explain", *judged)
        case _:
            words = ("watch",)
    return tuple(f"kubectl skill {_completed(word, update)}" for word in words)


def _completed(words: str, update: SkillUpdate) -> str:
    command, _, flags = words.partition(" ")
    return f"{command} {update.name} -n {update.namespace} {flags}".rstrip()


def is_going_back(body: Raw) -> bool:
    """Returns whether a finished update is on its way back, so that its end is still to come."""
    return statuses.is_reverting(body) and _ready_reason(body) != Reason.REVERT_REFUSED


def _ready_reason(body: Raw) -> str:
    ready = statuses.read(body.get("status") or {}).condition(ConditionType.READY)
    return ready.reason if ready else ""
