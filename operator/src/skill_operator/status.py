"""The status of a SkillUpdate as documents: what the operator knows and must not lose when old pods are gone.

Pure. Unknown or broken parts are dropped on reading: whatever somebody writes into a status by hand, the next pass
learns again from the children.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, ValidationError, field_validator

from skill_contract.evaluation import Evaluation
from skill_contract.manifest import DIGEST_PATTERN, VERSION_PATTERN, VersionRef
from skill_contract.model import ContractError, Count, Document
from skill_operator.api import ConditionType, Phase, Reason, to_unix

MOST_NAME, MOST_REASON, MOST_MESSAGE = 63, 1024, 32768
"""Characters that the CRD takes."""
MOST_PODS, MOST_LOST = 1024, 16
"""Entries of a list of pods that it takes."""
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
"""As `to_rfc3339` writes it."""


class Part(Document):
    """A part of the status: as every document, but keys that are not ours are ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")


class Condition(Part):
    """One entry of `conditions` (meta/v1 Condition)."""

    type: str
    status: str
    """`True`, `False` or `Unknown`."""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class Published(Part):
    version: str = Field(pattern=f"^{VERSION_PATTERN}$")
    digest: str = Field(pattern=f"^{DIGEST_PATTERN}$")
    uri: str


class Training(Part):
    stage: str | None = None
    step: int | None = None
    total_steps: int | None = None
    eta_seconds: int | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    last_checkpoint_step: int | None = None
    heartbeat_time: str | None = None
    pod: str | None = None
    """The pod that trained last: its log is the one to read."""
    attempt: int = 0
    """How many pods have started to train."""
    restarts: int = 0
    preemptions: int = 0


class Used(Part):
    """What an update has used up so far, over all its train Jobs."""

    attempts: Count = 0
    restarts: Count = 0
    preemptions: Count = 0
    gpu_seconds: int = Field(0, ge=0, lt=2**53)


class Rollback(Part):
    reason: str
    message: str
    fault_at: str | None = None
    """When it happened, as far as the cluster's clocks tell."""
    started_at: str
    """When it was seen."""
    told_at: str | None = None
    """When the target was told to go back; with `rollback: Manual` that is when a person has decided."""
    deadline: str
    most_back: Count = 0
    """The most pods that were back at one time: one more has its time again."""
    finished_at: str | None = None
    """When every pod was back on the version before."""

    @property
    def seconds(self) -> float | None:
        """How long the way back took, from the fault on and without what a person took to decide; None: not over."""
        began, told, finished = (to_unix(time) for time in (self.started_at, self.told_at, self.finished_at))
        if began is None or finished is None:
            return None
        waited = max(0.0, told - began) if told is not None else 0.0
        return max(0.0, finished - (to_unix(self.fault_at) or began) - waited)


class RollbackNote(Part):
    """The annotation that outlives a lost status; of an object that was copied it says nothing."""

    uid: str
    rollback: Rollback

    @classmethod
    def read(cls, text: str, uid: str) -> Rollback | None:
        """Returns the rollback of the update with this uid; None for none, a broken one, or another update's."""
        try:
            note = cls.parse_json(text)
        except ContractError:
            return None
        return note.rollback if note.uid == uid and _fits(note.rollback) else None


def _fits(rollback: Rollback) -> bool:
    """Returns whether the API server would take it as a part of the status: anybody may have written the annotation."""
    times = (rollback.fault_at, rollback.started_at, rollback.told_at, rollback.deadline, rollback.finished_at)
    written = all(_TIME.fullmatch(time) and to_unix(time) is not None for time in times if time is not None)
    return written and len(rollback.reason) <= MOST_REASON and len(rollback.message) <= MOST_MESSAGE


class Hold(Part):
    """The stop after the first new pod: the rest follows when that one is proved."""

    since: str | None = None
    """None: the rollout could not be held."""
    ended: str | None = None
    proved: bool = False
    proved_at: str | None = None
    """Since when the first new pod is analysed, where it is."""
    pods: tuple[str, ...] = ()
    """Names of the pods that are: with the last of them goes what was seen."""
    lost: Count = 0
    """How often the last of them went."""
    message: str = ""
    """How it ended: what was proved, or why all pods are judged at the end."""


class Measured(Part):
    name: str
    value: float | None = None
    previous: float | None = None
    """Of the version before."""
    verdict: str


class Analysed(Part):
    result: str
    """Passed, Failed or Inconclusive."""
    message: str
    at: str
    samples: float | None = None
    failures: int = 0
    """Fails in a row."""
    metrics: tuple[Measured, ...] = ()


class Lost(Part):
    pod: str
    times: Count = 1


class Soak(Part):
    """All spans together in which every pod was to serve without a fault."""

    pods: tuple[str, ...] = ()
    """Those that served when the newest began, and have to go on; what comes beside them disturbs nothing."""
    until: str
    """When the last one has to have held."""
    begun: Count = 1
    lost: tuple[Lost, ...] = ()
    """The pods that went away in the middle, the newest last."""

    def without(self, gone: Iterable[str]) -> Soak:
        """Returns the soak once it was broken by these pods."""
        times = {each.pod: each.times for each in self.lost}
        for pod in gone:
            times[pod] = times.pop(pod, 0) + 1
        lost = tuple(Lost(pod=pod, times=count) for pod, count in times.items())
        return self.model_copy(update={"begun": self.begun + 1, "lost": lost[-MOST_LOST:]})


class Ended(Part):
    """A pod's engine that had ended before a rollout that replaces no pod: that is no fault of the candidate."""

    uid: str
    restarts: Count
    last_exit: str | None = None
    """By the kubelet's clock, as the engine's later exits are."""


class Rollout(Part):
    previous: str = ""
    """The annotation before: what a rollback goes back to. Empty: there was none, pods took their SKILL_DEFAULT."""
    previous_digest: str = ""
    candidate: str
    pods_verified: str = ""
    most_verified: Count = 0
    """The most pods that were proved at one time: one more than these is progress."""
    started_at: str
    deadline: str
    applied_at: str | None = None
    """When the target was first seen with the candidate's annotation."""
    template: str | None = None
    """Names the pod template that is rolled out, without its version: a new one is somebody's own rollout."""
    hold: Hold | None = None
    verified_at: str | None = None
    """Since when every pod is proved: the beginning of the soak."""
    soak: Soak | None = None
    """None: not all pods have been proved so far."""
    previous_pods: tuple[str, ...] = ()
    """The pods before the rollout: whose metrics the candidate's are compared with."""
    ended_before: tuple[Ended, ...] = ()
    """Empty where the rollout makes its pods anew."""
    promoting: bool = False
    """The pod of a promote step was seen to start: the head may have moved, whatever became of its Job."""
    reverting: bool = False
    """The same of the step that moves it back."""
    analysis: Analysed | None = None
    """What Prometheus said last: of the first new pod while it is held, then of all in this soak."""
    rollback: Rollback | None = None

    @property
    def watched_since(self) -> float | None:
        """Since when what has to serve without a fault does: all pods, or the first new one; None: nothing does yet."""
        held = self.hold
        return to_unix(self.verified_at or (held.proved_at if held and not held.ended else None))


class Failure(Part):
    """Why the update failed; while training goes on, why its last pod ended before its time."""

    reason: str
    retriable: bool = False
    exit_code: int | None = None
    pod: str | None = None
    node: str | None = None
    message: str = ""


class Status(Part):
    """All of `status`. Its `conditions` are in the order of their types' first appearance."""

    observed_generation: int = 0
    phase: str = ""
    progress: str | None = None
    conditions: tuple[Condition, ...] = ()
    parent: VersionRef | None = None
    published: Published | None = None
    training: Training | None = None
    evaluation: Evaluation | None = None
    rollout: Rollout | None = None
    failure: Failure | None = None
    start_time: str | None = None
    completion_time: str | None = None
    gpu_seconds: int | None = None

    @field_validator("phase")
    @classmethod
    def _is_a_phase(cls, phase: str) -> str:
        return Phase(phase).value if phase else ""

    def condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def is_true(self, kind: str) -> bool:
        condition = self.condition(kind)
        return condition is not None and condition.status == "True"

    def is_false(self, kind: str) -> bool:
        condition = self.condition(kind)
        return condition is not None and condition.status == "False"

    @property
    def is_final(self) -> bool:
        """True once the update succeeded or failed for good."""
        return self.is_true("Succeeded") or self.is_false("Succeeded")


def read(raw: Mapping[str, Any]) -> Status:
    """Returns the status in raw JSON, without the parts that cannot be read."""
    try:
        return Status.model_validate(raw)
    except ValidationError as error:
        broken = {problem["loc"][0] for problem in error.errors(include_url=False)}
        return Status.model_validate({key: value for key, value in raw.items() if key not in broken})


def read_to_plan(raw: Mapping[str, Any]) -> Status:
    """Returns what `read` does, without the milestones of which it lacks what came of them: they are learnt anew."""
    status = read(raw)
    checked = status.condition(ConditionType.CHECKED)
    was_applied = checked is not None and checked.reason == Reason.ALREADY_APPLIED
    has_version = status.published is not None and (was_applied or status.parent is not None)
    failed = status.failure is not None
    passed = has_version and status.is_true(ConditionType.EVALUATED)
    stands: dict[str, bool] = {
        ConditionType.CHECKED: has_version if was_applied else status.parent is not None,
        ConditionType.TRAINED: passed or (failed and status.is_false(ConditionType.EVALUATED)),
        ConditionType.EVALUATED: has_version,
        ConditionType.PUBLISHED: has_version,
        ConditionType.ROLLED_OUT: has_version,
    }
    kept = tuple(
        condition
        for condition in status.conditions
        if condition.type not in stands or (stands[condition.type] if condition.status == "True" else failed)
    )
    return status.model_copy(update={"conditions": kept, "rollout": status.rollout if has_version else None})


def is_reverting(body: Mapping[str, Any]) -> bool:
    """Returns True for a raw SkillUpdate that had succeeded and is on its way back."""
    truth = {c.get("type"): c.get("status") for c in (body.get("status") or {}).get("conditions") or ()}
    if truth.get("Succeeded") != "True" or truth.get("Reverted") in {"True", "False"}:
        return False
    return bool((body.get("spec") or {}).get("revert")) or truth.get("Ready") == "False"


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON merge patch that turns `old` into `new`; empty where they are equal.

    Source: RFC 7386; a key is removed by null, lists are replaced as a whole.
    """
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            deeper = merge_patch(before, value)
            if deeper:
                patch[key] = deeper
        elif value != before or key not in old:
            patch[key] = value
    return patch
