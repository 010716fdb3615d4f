"""Check: data, credentials, model and graders are looked at on a CPU, so that a mistake costs seconds.

Pure.
"""

from __future__ import annotations

from skill_contract.manifest import VersionRef
from skill_contract.outcome import Outcome, Result
from skill_contract.step import Step
from skill_operator.actions import CreateJob
from skill_operator.api import ConditionType, Phase, Reason
from skill_operator.manifests.job import check_job
from skill_operator.manifests.serving import version_uri
from skill_operator.status import Failure, Published, Status
from skill_operator.steps.answers import MAX_RUNS, answer, interruption, lost_too_often, no_more_pods, why_waiting
from skill_operator.steps.verdict import Facts, Verdict, fail, made, missed, reached, succeed


def learn_check(facts: Facts) -> Status:
    """Returns what is known once the check step has answered: the parent, or why training would be in vain.

    Or even what came of it: the version that an update has left which was the very same.
    """
    known, job = facts.known, facts.seen.job(Step.CHECK)
    said = answer(job) if job else None
    if job is None or known.condition(ConditionType.CHECKED):
        return known
    if said is None or said.lost:
        return known if job.deleting else facts.learn(failure=interruption(job) or known.failure)
    if said.outcome and said.outcome.outcome == Result.SUCCEEDED:
        outcome = said.outcome
        known = reached(facts, _with_version(facts, outcome), ConditionType.CHECKED, outcome.reason, outcome.message)
        return made(facts, known, outcome.published, outcome) if outcome.published else known
    failure = said.failure or Failure(reason=Reason.CRASHED, message="the check step rejects, which it never does")
    known = known.model_copy(update={"failure": failure})
    return missed(facts, known, ConditionType.CHECKED, failure.reason, failure.message)


def _with_version(facts: Facts, outcome: Outcome) -> Status:
    version = VersionRef(version=outcome.version, digest=outcome.digest)
    if outcome.reason != Reason.ALREADY_APPLIED:
        return facts.learn(parent=version, failure=None)
    uri = version_uri(facts.spec.model.uri, outcome.version)
    return facts.learn(published=Published(version=version.version, digest=version.digest, uri=uri))


def check(facts: Facts) -> Verdict | None:
    """Checked, or failed with the step's reason; an update whose content is in the lineage already is done."""
    checked = facts.known.condition(ConditionType.CHECKED)
    if checked is None:
        return _run(facts)
    if checked.status != "True":
        assert facts.known.failure is not None
        return fail(facts, facts.known.failure, actions=no_more_pods(facts.seen.job(Step.CHECK)))
    if checked.reason == Reason.ALREADY_APPLIED:
        return succeed(facts, Reason.ALREADY_APPLIED, checked.message)
    return None


def _run(facts: Facts) -> Verdict:
    job = facts.seen.job(Step.CHECK)
    said = answer(job) if job else None
    if job and said and said.lost and job.run >= MAX_RUNS:
        return fail(facts, lost_too_often(job))
    run = job.run + 1 if job and said and said.lost else 1
    start = job is None or (said is not None and said.lost)
    waiting = why_waiting(job) if job and not start else ""
    return Verdict(
        phase=Phase.CHECKING,
        reason=Reason.CHECKING,
        message=f"the check step cannot start: {waiting}" if waiting else "the check step looks at data and model",
        actions=(CreateJob(check_job(facts.update, facts.spec, facts.images, run)),) if start else (),
    )
