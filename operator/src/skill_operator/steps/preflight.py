"""Preflight: what a rollback would go back to is still in the repository; asked before the target is told anything.

Pure. The operator has no credentials for the store, so a Job of the promote step's image looks the version up. The
parent is not asked for: it was the head when the check read it, and nothing removes a head.
"""

from __future__ import annotations

from dataclasses import replace

from skill_contract.manifest import VersionRef
from skill_operator.api import Phase, Reason
from skill_operator.manifests.job import PREFLIGHT
from skill_operator.manifests.serving import digest_in, version_uri
from skill_operator.names import version_in
from skill_operator.observed import StepJob, Target
from skill_operator.steps.answers import MAX_RUNS, Said, answer, lost_too_often, next_run, why_waiting
from skill_operator.steps.head import ask_step
from skill_operator.steps.target import person_needed
from skill_operator.steps.verdict import ROLLOUT_SECONDS, Facts, Verdict, published


def preflight(facts: Facts, target: Target) -> Verdict | None:
    """Returns what is waited for before a rollout; None where there is something to go back to."""
    before = _version_before(facts, target)
    if before is None:
        return None
    job = facts.seen.job(PREFLIGHT)
    if job is None or job.deleting:
        return _ask(facts, before)
    said = answer(job)
    if said is None:
        waiting = why_waiting(job)
        return _looks_up(before, f": its Job cannot start: {waiting}" if waiting else "")
    if said.outcome is None:
        return _ask(facts, before) if next_run(job, facts.now) <= facts.now else _unknown(facts, target, job, said)
    is_the_same = (said.outcome.version, said.outcome.digest) == (before.version, before.digest)
    return None if is_the_same else _ask(facts, before)


def _version_before(facts: Facts, target: Target) -> VersionRef | None:
    """Returns the version that the target is told, where it is one of this repository's that is not known to be there.

    Known are the parent, and the candidate, which it is told already where the status was lost in the middle.
    """
    version, digest, parent = version_in(target.weights), digest_in(target.weights), facts.known.parent
    own = version_uri(facts.spec.model.uri, version)
    is_known = digest in {parent.digest if parent else "", published(facts).digest}
    if is_known or not version or not digest or target.weights != f"{own}@{digest}":
        return None
    return VersionRef(version=version, digest=digest)


def _ask(facts: Facts, before: VersionRef) -> Verdict:
    parent = facts.known.parent
    assert parent is not None, "published without a parent"
    return ask_step(facts, PREFLIGHT, before, parent.digest, _looks_up(before))


def _looks_up(before: VersionRef, more: str = "") -> Verdict:
    return Verdict(
        phase=Phase.ROLLING_OUT,
        reason=Reason.ROLLING_OUT,
        message=f"looks up {before.version}, which a rollback would go back to{more}",
        requeue_after=ROLLOUT_SECONDS,
    )


def _unknown(facts: Facts, target: Target, job: StepJob, said: Said) -> Verdict:
    """Nothing is touched until it is there, or the target is told another version: looked up again by itself."""
    failure, wait = said.failure or lost_too_often(job), next_run(job, facts.now) - facts.now
    if (said.lost or failure.retriable) and job.run < MAX_RUNS:
        again = Verdict(
            phase=Phase.ROLLING_OUT,
            reason=Reason.ROLLING_OUT,
            message=f"what a rollback would go back to is looked up again: {failure.message}",
        )
        return replace(again, requeue_after=wait)
    message = (
        f"{target.title} serves {target.weights}, and a rollback could not go back to it: {failure.message}; tell "
        f"{target.place.words} a version that is there, and this update goes on by itself"
    )
    return replace(person_needed(Reason.NO_PREVIOUS, message), requeue_after=wait)
