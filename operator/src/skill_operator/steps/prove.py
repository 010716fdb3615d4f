"""Prove: soak, then let the promote step ask the served pods the golden prompts and move the head.

Pure. The head moves after the proof and in the same step, so that what is head has been served and found equal to what
was trained.
"""

from __future__ import annotations

from dataclasses import replace

from skill_contract.manifest import VersionRef
from skill_contract.outcome import Result
from skill_contract.step import Pod, Step
from skill_operator.actions import ApplyWeights, DeleteJob
from skill_operator.api import ConditionType, Phase, Reason, to_unix
from skill_operator.manifests.job import PROVE, REVERT
from skill_operator.manifests.serving import weights_of
from skill_operator.observed import ServingPod, StepJob
from skill_operator.status import Failure, Published, Status
from skill_operator.steps.answers import MAX_RUNS, Said, answer, lost_too_often, next_run, why_waiting
from skill_operator.steps.head import ask_step
from skill_operator.steps.retention import retention
from skill_operator.steps.rollback import begin_rollback
from skill_operator.steps.target import standing
from skill_operator.steps.verdict import ROLLOUT_SECONDS, Facts, State, Verdict, fail, published, reached, succeed


def learn_promotion(facts: Facts) -> Status:
    """Returns what is known of the promote step: that it was started, that it has moved the head."""
    job = facts.seen.job(Step.PROMOTE)
    if facts.known.is_final or job is None:
        return facts.known
    known = begun(facts, job, "promoting")
    said = answer(job)
    if said is None or said.outcome is None or said.outcome.outcome != Result.SUCCEEDED:
        return known
    if known.rollout and known.rollout.rollback:  # the way back has begun, and takes the head along (see `head`)
        return known
    return reached(facts, known, ConditionType.ROLLED_OUT, said.outcome.reason, said.outcome.message)


def begun(facts: Facts, job: StepJob, what: str) -> Status:
    """Returns what is known once a pod of a step that moves the head was seen to start: its Job may be taken away."""
    rollout = facts.known.rollout
    if rollout is None or not any(pod.started for pod in job.pods):
        return facts.known
    return facts.learn(rollout=rollout.model_copy(update={what: True}))


def promoted(facts: Facts) -> Verdict | None:
    """The head has moved: the update is done, and from here on only a person takes it back."""
    rolled_out = facts.known.condition(ConditionType.ROLLED_OUT)
    version = facts.known.published
    if rolled_out is None or rolled_out.status != "True" or version is None:
        return None
    message = f"{version.version} is the head of {facts.spec.model.uri}{_served(facts, version)}"
    return replace(succeed(facts, Reason.PROMOTED, message), actions=_forget_the_one_before(facts))


def _served(facts: Facts, version: Published) -> str:
    """Returns what its target is told in the end, in words: somebody may have been there in the last moment."""
    target = facts.seen.target
    if target is None:
        return ""
    if target.weights == weights_of(version):
        return f", served by {target.name}"
    who = f" by {target.weights_manager}" if target.weights_manager else ""
    told = f"is told {target.weights!r}" if target.weights else "is told no version"
    return f"; {target.title} {told}{who} all the same: set spec.revert to true to take the head back, too"


def _forget_the_one_before(facts: Facts) -> tuple[ApplyWeights, ...]:
    """From here on only a person goes back: what live engines have kept for it makes room."""
    target, rollout = facts.seen.target, facts.known.rollout
    if target is None or rollout is None or not target.beside or target.weights != rollout.candidate:
        return ()
    return (ApplyWeights(target.place, rollout.candidate),)


def soak(facts: Facts) -> Verdict | None:
    """All pods serve the candidate: for some time, without a fault, before the head moves."""
    rollout, serving = facts.known.rollout, facts.spec.serving
    if rollout is None or serving is None:
        return None
    since = to_unix(rollout.verified_at)
    assert since is not None, "soak comes after roll, which lets nothing through that is not verified"
    left = since + serving.soak_seconds - facts.now
    if left <= 0:
        return None
    return Verdict(
        phase=Phase.SOAKING,
        reason=Reason.SOAKING,
        message=f"{rollout.pods_verified} pods verified; {serving.soak_seconds} s without a fault before promotion",
        requeue_after=min(left, ROLLOUT_SECONDS),
    )


def ask(facts: Facts) -> Verdict | None:
    """A promote Job that was started decides whether the candidate stays, while the target is told and serves it."""
    job = facts.seen.job(Step.PROMOTE)
    if job is None or job.deleting:
        return None
    said = answer(job)
    return no(facts, job, said) if said else proving(facts, job)


def proving(facts: Facts, job: StepJob) -> Verdict:
    """Returns the verdict of a Job that has not answered yet."""
    waiting = why_waiting(job)
    does = "proves the first new pod" if job.step == PROVE else "proves and promotes"
    message = f"the promote step cannot start: {waiting}" if waiting else f"the promote step {does}"
    return _under_way(facts, job.step, job.run, message)


def _phase(facts: Facts, step: str) -> Phase:
    if step == PROVE:
        return Phase.ROLLING_OUT
    return Phase.PUBLISHING if facts.known.rollout is None else Phase.SOAKING


def _under_way(facts: Facts, step: str, run: int, message: str) -> Verdict:
    """Returns the verdict of a run under way; so late a one is there only because the store was away in all before."""
    is_late = run > MAX_RUNS
    reason = Reason.PROVING if facts.spec.serving else Reason.PUBLISHING
    return Verdict(
        phase=_phase(facts, step),
        state=State.STALLED if is_late else State.WORKING,
        reason=Reason.STORE_UNAVAILABLE if is_late else reason,
        message=f"the store did not answer {run - 1} times; {message}" if is_late else message,
        requeue_after=ROLLOUT_SECONDS,
    )


def no(facts: Facts, job: StepJob, said: Said) -> Verdict | None:
    """Returns the end after a no; None where the question is to be asked again."""
    if said.outcome:
        return _withdraw(facts, job, Failure(reason=said.outcome.reason, message=said.outcome.message))
    if said.failure and not said.failure.retriable:
        return _withdraw(facts, job, said.failure)
    if job.run >= MAX_RUNS and not said.is_store_away:
        return _withdraw(facts, job, said.failure or lost_too_often(job))
    wait = next_run(job, facts.now) - facts.now
    if wait <= 0:
        return None
    why = said.failure.message if said.failure else "its answer was lost"
    return Verdict(
        phase=_phase(facts, job.step),
        # A store that is away says nothing about the candidate, and the way back would need it just as much.
        state=State.STALLED if job.run >= MAX_RUNS else State.WORKING,
        reason=said.failure.reason if said.failure else Reason.PROVING,
        message=f"the promote step is tried again: {why}",
        requeue_after=wait,
    )


def _withdraw(facts: Facts, job: StepJob, failure: Failure) -> Verdict:
    if facts.known.rollout is None:
        return fail(facts, failure)
    return begin_rollback(facts, failure.reason, failure.message, job.finished)


def promote(facts: Facts) -> Verdict:
    """Starts the promote step: with the pods to be asked, or, where nothing is served, just to move the head."""
    return put(facts, Step.PROMOTE, standing(facts.seen.target) if facts.seen.target else ())


def put(facts: Facts, step: str, pods: tuple[ServingPod, ...]) -> Verdict:
    """Returns the verdict that starts the next run of a question to some pods."""
    job, back = facts.seen.job(step), facts.seen.job(REVERT)
    run = job.run + 1 if job and not job.deleting else 1
    does = "the first new pod" if step == PROVE else "what is served and moves the head"
    verdict = _under_way(facts, step, run, f"the promote step proves {does}")
    if back or (job and job.deleting):  # two that move the head never run at once
        actions = (DeleteJob(back.kind, back.name, back.uid),) if back and not back.deleting else ()
        return replace(verdict, actions=actions)
    parent, target, candidate = facts.known.parent, facts.seen.target, published(facts)
    assert parent is not None
    return ask_step(
        facts,
        step,
        VersionRef(version=candidate.version, digest=candidate.digest),
        parent.digest,
        verdict,
        pods=_addresses(facts, pods),
        retention=retention(facts) if step == Step.PROMOTE else None,
        # What a live target holds back answers only under its own name.
        model=candidate.version if step == PROVE and target and target.is_live else "",
    )


def _addresses(facts: Facts, pods: tuple[ServingPod, ...]) -> tuple[Pod, ...]:
    serving = facts.spec.serving
    if serving is None:
        return ()
    ordered = sorted((pod for pod in pods if pod.answers), key=lambda pod: pod.name)
    return tuple(Pod(name=pod.name, url=_url(pod, serving.port)) for pod in ordered)


def _url(pod: ServingPod, port: int) -> str:
    scheme = "https" if port in pod.tls_ports else "http"
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    return f"{scheme}://{host}:{port}"
