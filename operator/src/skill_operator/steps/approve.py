"""Approval: between a passed evaluation and anything that users notice, a person may want to look.

Pure.
"""

from __future__ import annotations

from skill_operator.api import Phase, Reason
from skill_operator.steps.verdict import RESYNC_SECONDS, Facts, State, Verdict


def approve(facts: Facts) -> Verdict | None:
    """`gates.approval: Manual` waits for `spec.approved`; a rollout that has begun is not stopped by it."""
    if facts.spec.gates.approval == "Automatic" or facts.spec.approved or facts.known.rollout is not None:
        return None
    assert facts.known.published is not None
    return Verdict(
        phase=Phase.AWAITING_APPROVAL,
        state=State.HELD,
        reason=Reason.AWAITING_APPROVAL,
        message=(
            f"{facts.known.published.version} passed its gates and waits: look at status.evaluation and the report, "
            "then set spec.approved to true; until then later updates of the model go on, and if one of them is "
            "promoted first, this one ends with HeadMoved"
        ),
        requeue_after=RESYNC_SECONDS,
    )
