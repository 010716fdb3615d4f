"""The head's way back: by the promote step run backwards, which finds out by itself whether there is a way to go.

Pure. A promote step that was seen to start may have moved the head, whatever became of its Job; so no update whose
candidate is not served any more ends before that is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from skill_contract.manifest import VersionRef
from skill_contract.outcome import Result
from skill_contract.step import Pod, Retention, Step
from skill_operator.actions import CreateJob, DeleteJob
from skill_operator.api import Phase, Reason
from skill_operator.manifests.job import REVERT, promote_job
from skill_operator.observed import StepJob
from skill_operator.status import Failure
from skill_operator.steps.answers import MAX_RUNS, Said, answer, lost_too_often, next_run, outdated, why_waiting
from skill_operator.steps.verdict import ROLLOUT_SECONDS, Facts, Verdict, fail, published

_TELLS_NOTHING = frozenset({
    Reason.STORE_UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.OUT_OF_MEMORY, Reason.CRASHED, Reason.RETRIES_EXHAUSTED,
})  # fmt: skip
"""Failures of a promote step after which nobody knows whether it has moved the head."""

Waits = Callable[[str], Verdict]
"""Puts what is waited for into the words of the stage that waits."""


def back(facts: Facts, waits: Waits) -> Verdict | Failure | None:
    """Returns what is waited for, or why the head cannot be moved back; None: it is back."""
    job = facts.seen.job(REVERT)
    if job is None:
        return _ask(facts, waits)
    if job.deleting:
        return waits("the promote step that was refused before is removed first")
    said = answer(job)
    if said is None:
        waiting = why_waiting(job)
        return waits(f"the promote step cannot start: {waiting}" if waiting else "the head is moved back")
    if _is_unanswered(said) and (job.run < MAX_RUNS or said.is_store_away):
        return _ask_again(facts, job, said, waits)
    return _refusal(job, said)


def _refusal(job: StepJob, said: Said) -> Failure | None:
    if said.outcome and said.outcome.outcome == Result.SUCCEEDED:
        return None
    if said.outcome:
        return Failure(reason=said.outcome.reason, message=said.outcome.message)
    return said.failure or lost_too_often(job)


def _is_unanswered(said: Said) -> bool:
    return said.lost or (said.failure is not None and said.failure.retriable)


def _ask_again(facts: Facts, job: StepJob, said: Said, waits: Waits) -> Verdict:
    wait = next_run(job, facts.now) - facts.now
    if wait <= 0:
        return _ask(facts, waits)
    why = said.failure.message if said.failure else "its answer was lost"
    return replace(waits(f"the promote step is tried again: {why}"), requeue_after=wait)


def _ask(facts: Facts, waits: Waits) -> Verdict:
    parent = facts.known.parent
    assert parent is not None, "published without a parent"
    version = VersionRef(version=parent.version, digest=parent.digest)
    return ask_step(facts, REVERT, version, published(facts).digest, waits("the head is moved back"))


def ask_step(
    facts: Facts,
    step: str,
    version: VersionRef,
    parent_digest: str,
    verdict: Verdict,
    *,
    pods: tuple[Pod, ...] = (),
    retention: Retention | None = None,
    model: str = "",
) -> Verdict:
    """Returns the verdict with the next run of a promote step, under whichever of its names; see `promote_job`."""
    job = facts.seen.job(step)
    manifest = promote_job(
        facts.update,
        facts.spec,
        facts.images,
        version=version,
        parent_digest=parent_digest,
        pods=pods,
        retention=retention,
        step=step,
        model=model,
        run=job.run + 1 if job else 1,
    )
    actions = (*verdict.actions, *outdated(facts.seen.jobs, step), CreateJob(manifest))
    return replace(verdict, actions=actions, requeue_after=1)


def call_off(facts: Facts) -> tuple[DeleteJob, ...]:
    """Returns what takes a promote step away that still asks, for a candidate that goes."""
    job = facts.seen.job(Step.PROMOTE)
    return (DeleteJob(job.kind, job.name, job.uid),) if job and not job.is_over and not job.deleting else ()


def as_before(facts: Facts, waits: Waits) -> tuple[Verdict | None, str]:
    """Returns what is waited for until the head is what it was before the rollout; and, once it is over, how it ended.

    The words are empty where the head has never moved.
    """
    job = facts.seen.job(Step.PROMOTE)
    if job and not job.is_over:
        return replace(waits("the promote step is taken away first"), actions=call_off(facts)), ""
    if not _may_have_moved(facts, job):
        return None, ""
    found = back(facts, waits)
    if isinstance(found, Verdict):
        return found, ""
    return None, f"the head was not moved back: {found.message}" if found else "the head is what it was before"


def _may_have_moved(facts: Facts, job: StepJob | None) -> bool:
    if facts.known.rollout is None or not facts.known.rollout.promoting:
        return False
    said = answer(job) if job else None
    if said is None or said.lost:
        return True
    if said.outcome:
        return said.outcome.outcome == Result.SUCCEEDED
    return said.failure is not None and said.failure.reason in _TELLS_NOTHING


def give_up(facts: Facts, reason: Reason, message: str, phase: Phase = Phase.FAILED) -> Verdict:
    """Returns the end of a rollout whose target is not ours any more: what it serves is left, the head is not."""

    def waits(what: str) -> Verdict:
        return Verdict(
            phase=Phase.ROLLING_BACK,
            reason=Reason.ROLLING_BACK,
            message=f"{message}; {what}",
            requeue_after=ROLLOUT_SECONDS,
        )

    waiting, head = as_before(facts, waits)
    return waiting or fail(
        facts, Failure(reason=reason, message=f"{message}; {head}" if head else message), phase=phase
    )
