"""What the promote step is told of old versions: how many stay, and which stay whatever their age.

Pure. Only the operator knows what is served and what other updates need; only the step may delete.
"""

from __future__ import annotations

from skill_contract.step import Retention
from skill_operator.names import version_in
from skill_operator.neighbours import model_key
from skill_operator.steps.verdict import Facts


def retention(facts: Facts) -> Retention | None:
    """Returns what stays after this promotion; None where all versions do."""
    if facts.spec.model.keep_versions is None:
        return None
    model = model_key(facts.spec.model.uri)
    others = [one for one in facts.seen.neighbours if one.model == model and one.uid != facts.update.uid]
    # Of several updates of one target the one that was promoted last is served there.
    served = dict(one.leaves for one in sorted(others, key=lambda one: one.promoted_at))
    rollout, target = facts.known.rollout, facts.seen.target
    own = [rollout.previous if rollout else "", target.weights if target else ""]
    bases = {pod.base for pod in target.pods} if target else set()
    names = {*served.values(), *bases, *(name for one in others for name in one.holds), *map(version_in, own)}
    return Retention(
        keep_versions=facts.spec.model.keep_versions,
        in_use=tuple(sorted(names - {""})),
        updates=tuple(sorted(one.uid for one in others if not one.has_ended)),
    )
