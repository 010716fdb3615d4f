"""The two values that every stage speaks in: the Facts that it is given and the Verdict that it returns.

Pure. A stage is a function `Facts -> Verdict | None`; None means: nothing to do or to wait for here, go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from skill_contract.manifest import VersionRef
from skill_contract.outcome import Outcome
from skill_contract.spec import SkillUpdateSpec
from skill_operator.actions import Action, News
from skill_operator.api import ConditionType, Phase, Reason, SkillUpdate, to_rfc3339
from skill_operator.conditions import put
from skill_operator.manifests.pod import Images
from skill_operator.manifests.serving import version_uri
from skill_operator.observed import Observed
from skill_operator.status import Condition, Failure, Published, Status

RESYNC_SECONDS = 600.0
"""How long an unsettled update goes without a look, when nothing about it changes."""
LOOK_AGAIN_SECONDS = 60.0
"""How often something outside is looked at that sends no events."""
PROGRESS_SECONDS = 10.0
"""How often live progress is asked for."""
ROLLOUT_SECONDS = 5.0
"""How often the pods of a target are looked at while it rolls; changes of the target itself wake the update besides."""


class State(Enum):
    """What a verdict means for Ready, Succeeded, Reconciling and Stalled."""

    WORKING = auto()
    HELD = auto()
    """Somebody asked for the stop: neither work nor fault."""
    STALLED = auto()
    """A person has to act; the operator looks again by itself."""
    SUCCEEDED = auto()
    FAILED = auto()
    """Final."""


@dataclass(frozen=True, slots=True)
class Facts:
    update: SkillUpdate
    spec: SkillUpdateSpec
    known: Status
    seen: Observed
    images: Images
    now: float
    """Unix seconds."""

    def learn(self, **parts: object) -> Status:
        """Returns what is known with these parts of the status replaced."""
        return self.known.model_copy(update=parts)

    @property
    def time(self) -> str:
        return to_rfc3339(self.now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    phase: Phase
    reason: str
    message: str
    state: State = State.WORKING
    known: Status | None = None
    """What is known from now on, where this verdict adds to it."""
    actions: tuple[Action, ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)
    """Conditions that are there only while true, with their messages."""
    news: tuple[News, ...] = ()
    requeue_after: float | None = RESYNC_SECONDS
    """Seconds until the next look; None: nothing is left to do for this object."""


def published(facts: Facts) -> Published:
    """Returns the version that a rollout brings."""
    assert facts.known.published is not None, "a rollout without a published version"
    return facts.known.published


def deadline(facts: Facts, *, later: float = 0) -> str:
    """Returns until when a rollout that comes forward now, or some seconds later, has to come forward again."""
    assert facts.spec.serving is not None, "a rollout without a target"
    return to_rfc3339(facts.now + later + facts.spec.serving.progress_deadline_seconds)


def reached(facts: Facts, known: Status, kind: ConditionType, reason: str, message: str) -> Status:
    """Returns what is known with a milestone reached."""
    return _set(facts, known, Condition(type=kind, status="True", reason=reason, message=message))


def made(facts: Facts, known: Status, version: VersionRef, outcome: Outcome) -> Status:
    """Returns what is known once a version has passed its gates and lies in the repository."""
    uri = version_uri(facts.spec.model.uri, version.version)
    there = Published(version=version.version, digest=version.digest, uri=uri)
    known = known.model_copy(
        update={"published": there, "evaluation": outcome.evaluation or known.evaluation, "failure": None}
    )
    known = reached(facts, known, ConditionType.TRAINED, outcome.reason, outcome.message)
    known = reached(facts, known, ConditionType.EVALUATED, Reason.GATES_PASSED, outcome.message)
    return reached(facts, known, ConditionType.PUBLISHED, outcome.reason, f"{version.version} at {uri}")


def missed(facts: Facts, known: Status, kind: ConditionType, reason: str, message: str) -> Status:
    """Returns what is known with a milestone failed."""
    return _set(facts, known, Condition(type=kind, status="False", reason=reason, message=message))


def _set(facts: Facts, known: Status, condition: Condition) -> Status:
    return put(known, facts.update.generation, facts.now, condition)


def fail(
    facts: Facts,
    failure: Failure,
    *,
    phase: Phase = Phase.FAILED,
    known: Status | None = None,
    actions: tuple[Action, ...] = (),
    marks: Mapping[str, str] | None = None,
) -> Verdict:
    """Returns the end of an update that did not succeed; the old weights stay served."""
    last = (known or facts.known).model_copy(
        update={"failure": failure, "completion_time": facts.time},
    )
    return Verdict(
        phase=phase,
        state=State.FAILED,
        reason=failure.reason,
        message=failure.message,
        known=last,
        actions=actions,
        marks=marks or {},
        requeue_after=0,
    )


def succeed(facts: Facts, reason: Reason, message: str, known: Status | None = None) -> Verdict:
    """Returns the good end of an update."""
    last = (known or facts.known).model_copy(update={"completion_time": facts.time, "failure": None})
    return Verdict(
        phase=Phase.SUCCEEDED, state=State.SUCCEEDED, reason=reason, message=message, known=last, requeue_after=0
    )
