"""How conditions are set: one rule for their times, and what settled means.

Pure. Meaning and polarity of each condition: docs/operator.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skill_operator.api import AGAINST_THE_CANDIDATE, FINALIZER, ConditionType, Phase, to_rfc3339
from skill_operator.status import Condition, Status, is_reverting

MAX_MESSAGE = 32768
"""meta/v1 Condition.message."""
ENDS: Mapping[str, tuple[Phase, ...]] = {
    "True": (Phase.SUCCEEDED, Phase.REVERTED),
    "False": (Phase.FAILED, Phase.REJECTED, Phase.ROLLED_BACK),
}
"""The phases that an update can end in, by the truth of Succeeded."""


def put(status: Status, generation: int, now: float, *changes: Condition) -> Status:
    """Returns the status with these conditions; a condition's time changes only when its truth does."""
    conditions = {condition.type: condition for condition in status.conditions}
    for change in changes:
        before = conditions.get(change.type)
        kept = before is not None and before.status == change.status
        conditions[change.type] = change.model_copy(
            update={
                "message": change.message[:MAX_MESSAGE],
                "observed_generation": generation,
                "last_transition_time": before.last_transition_time if before and kept else to_rfc3339(now),
            }
        )
    return status.model_copy(update={"conditions": tuple(conditions.values())})


def without(status: Status, kinds: Iterable[str]) -> Status:
    """Returns the status without the conditions of these types."""
    dropped = set(kinds)
    return status.model_copy(
        update={"conditions": tuple(condition for condition in status.conditions if condition.type not in dropped)}
    )


def ended_as(known: Status) -> Phase:
    """Returns the phase of an update that is final: as it says, or, where somebody wrote another, by its milestones."""
    if known.is_true(ConditionType.SUCCEEDED):
        if known.phase in ENDS["True"]:
            return Phase(known.phase)
        return Phase.REVERTED if known.is_true(ConditionType.REVERTED) else Phase.SUCCEEDED
    if known.phase in ENDS["False"]:
        return Phase(known.phase)
    rolled_out = known.condition(ConditionType.ROLLED_OUT)
    if rolled_out and rolled_out.status == "False":
        return taken_back_as(rolled_out.reason)
    return Phase.REJECTED if known.is_false(ConditionType.EVALUATED) else Phase.FAILED


def taken_back_as(reason: str) -> Phase:
    """Returns the phase of an update whose candidate was taken back for this reason."""
    return Phase.ROLLED_BACK if reason in AGAINST_THE_CANDIDATE else Phase.FAILED


def is_settled(body: Mapping[str, Any]) -> bool:
    """Returns True for a raw SkillUpdate that needs no reconciliation: final, seen in its newest form, and released."""
    metadata, status = body["metadata"], body.get("status") or {}
    truth = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    is_final = status.get("phase") in ENDS.get(truth.get(ConditionType.SUCCEEDED, ""), ())
    is_seen = status.get("observedGeneration") == metadata.get("generation")
    is_held = FINALIZER in (metadata.get("finalizers") or ())
    return is_final and is_seen and not is_held and not is_reverting(body)
