"""Train: one Job that trains, evaluates and publishes; its progress, its restarts, and how it is stopped when it hangs.

Pure.
"""

from __future__ import annotations

from math import isinf

from skill_contract.manifest import VersionRef
from skill_contract.outcome import ExitCode, Outcome, Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import Step
from skill_operator.actions import Action, CreateJob, DeletePod, PatchJob
from skill_operator.api import ConditionType, Phase, Reason, to_rfc3339
from skill_operator.manifests.jobset import train_workload
from skill_operator.observed import StepJob, StepPod
from skill_operator.status import Failure, Status, Training, Used
from skill_operator.steps.answers import (
    MAX_RUNS,
    Said,
    answer,
    interruption,
    lost_too_often,
    no_more_pods,
    too_slow,
    why_waiting,
)
from skill_operator.steps.verdict import PROGRESS_SECONDS, Facts, Verdict, fail, made, missed, reached

NO_CONTEXT_GAIN = "NoInContextGain"
"""The one rejection that comes before any training."""

COUNTED_AFTER_SECONDS = 20
"""A Job counts a failure a moment after the pod that takes the failed one's place has begun."""


def learn_training(facts: Facts) -> Status:
    """Returns what is known of a run: how far it is, how often it was started, and its result once it has one."""
    job = facts.seen.job(Step.TRAIN)
    if job is None or facts.known.condition(ConditionType.TRAINED):
        return facts.known
    known = facts.known if job.deleting else _so_far(facts, job)
    said = answer(job) or _overdue(facts, job)
    if said is None or said.lost:
        return known
    if said.failure:
        failure = _with_cause(said.failure, known.failure)
        known = known.model_copy(update={"failure": failure})
        return missed(facts, known, ConditionType.TRAINED, failure.reason, failure.message)
    assert said.outcome is not None
    return _judged(facts, known, said.outcome)


def _so_far(facts: Facts, job: StepJob) -> Status:
    training = _counted(_progressed(facts.known.training or Training(), facts.seen.progress), job, facts.now)
    return facts.learn(training=training, gpu_seconds=_gpu_seconds(facts, job), failure=_interrupted(facts, job))


def _interrupted(facts: Facts, job: StepJob) -> Failure | None:
    """Returns why the last pod ended before its time; one that was stopped because it hung ended of that."""
    before, found = facts.known.failure, _hang(facts, job) or interruption(job)
    if found is None or (before and before.reason == Reason.HEARTBEAT_LOST and before.pod == found.pod):
        return before
    return found


def _with_cause(failure: Failure, last: Failure | None) -> Failure:
    """Returns the failure of a Job of which no pod is left, with what is remembered of the last one."""
    if failure.reason != Reason.RETRIES_EXHAUSTED or failure.pod or last is None:
        return failure
    message = f"{failure.message}; the last of its pods: {last.reason}: {last.message}"
    return last.model_copy(update={"reason": failure.reason, "retriable": True, "message": message})


def _judged(facts: Facts, known: Status, outcome: Outcome) -> Status:
    if outcome.outcome == Result.SUCCEEDED:
        return made(facts, known, VersionRef(version=outcome.version, digest=outcome.digest), outcome)
    reason, message = outcome.reason, outcome.message
    failure = Failure(reason=reason, message=message)
    known = known.model_copy(update={"evaluation": outcome.evaluation or known.evaluation, "failure": failure})
    trained = missed if reason == NO_CONTEXT_GAIN else reached
    known = trained(facts, known, ConditionType.TRAINED, reason, message)
    return missed(facts, known, ConditionType.EVALUATED, reason, message)


def _overdue(facts: Facts, job: StepJob) -> Said | None:
    """What has no deadline of its own in Kubernetes (a JobSet) is held to the spec's here."""
    limit = facts.spec.training.active_deadline_seconds
    if job.deadline_seconds is not None or job.started is None or facts.now - job.started <= limit:
        return None
    return Said(failure=too_slow(job, limit))


def _progressed(training: Training, progress: Progress | None) -> Training:
    if progress is None:
        return training
    eta = progress.eta_seconds
    seen = {
        "stage": progress.stage.value,
        "step": progress.step,
        "total_steps": progress.total,
        "eta_seconds": None if eta is None else round(eta),
        "loss": _short(progress.loss),
        "tokens_per_second": _short(progress.tokens_per_second),
        "last_checkpoint_step": progress.last_checkpoint,
        "heartbeat_time": to_rfc3339(progress.heartbeat),
    }
    kept = {key: value for key, value in seen.items() if value is not None}
    return training.model_copy(update=kept)


def _short(value: float | None) -> float | None:
    """Four digits are enough for people; more is for Prometheus."""
    rounded = None if value is None else float(f"{value:.4g}")
    return value if rounded is None or isinf(rounded) else rounded


def _counted(training: Training, job: StepJob, now: float) -> Training:
    """Counts go on from those of the Jobs before, and never fall: failed pods may be gone (drained nodes)."""
    used = job.used
    failures = job.failures - 1 if job.failed else job.failures
    restarts = max(training.restarts, used.restarts + failures)
    preemptions = max(training.preemptions, used.preemptions + job.preemptions)
    newest = next((pod for pod in job.pods if pod.index == 0), None)
    if newest is None or newest.started is None:
        return training.model_copy(update={"restarts": restarts, "preemptions": preemptions})
    ended = restarts - used.restarts + preemptions - used.preemptions
    last = job.failed or (newest.exit_code in {None, ExitCode.FINISHED} and not newest.is_preempted)
    attempt = max(training.attempt + (training.pod not in {None, newest.name}), used.attempts + ended + last)
    has_settled = job.complete or job.failed or now - newest.started >= COUNTED_AFTER_SECONDS
    vanished = max(0, attempt - used.attempts - ended - 1) if has_settled else 0
    return training.model_copy(
        update={
            "pod": newest.name,
            "restarts": restarts,
            "preemptions": preemptions + vanished,  # what went without a trace was taken away: faults leave one
            "attempt": attempt,
        }
    )


def _gpu_seconds(facts: Facts, job: StepJob) -> int:
    times = [(pod.started, pod.finished or facts.now) for pod in job.pods if pod.running or pod.finished]
    held = sum(end - start for start, end in times if start is not None)
    # Whole minutes: a number that grew with every look would be a status write with every look.
    minutes = int(held * facts.spec.training.gpus_per_node // 60)
    return max(facts.known.gpu_seconds or 0, job.used.gpu_seconds + minutes * 60)


def train(facts: Facts) -> Verdict | None:
    """Trained and published, rejected by a gate, or failed; until then, how far it is."""
    trained = facts.known.condition(ConditionType.TRAINED)
    if trained is None:
        return _run(facts)
    evaluated = facts.known.condition(ConditionType.EVALUATED)
    if evaluated and evaluated.status == "True":
        return None
    assert facts.known.failure is not None
    phase = Phase.REJECTED if evaluated else Phase.FAILED
    return fail(facts, facts.known.failure, phase=phase, actions=no_more_pods(facts.seen.job(Step.TRAIN)))


def _run(facts: Facts) -> Verdict:
    job = facts.seen.job(Step.TRAIN)
    said = answer(job) if job else None
    if job is None or (said is not None and said.lost):
        if job and job.run >= MAX_RUNS:
            return fail(facts, lost_too_often(job))
        return _start(facts, job.run + 1 if job else 1)
    if job.deleting:
        return _waiting("the pods of the run before have not ended yet")
    return _watch(facts, job)


def _start(facts: Facts, run: int) -> Verdict:
    manifest = train_workload(facts.update, facts.spec, facts.images, run, _used(facts.known))
    return Verdict(
        phase=Phase.TRAINING,
        reason=Reason.TRAINING,
        message="training starts",
        actions=(CreateJob(manifest),),
        requeue_after=PROGRESS_SECONDS,
    )


def _used(known: Status) -> Used:
    training = known.training or Training()
    return Used(
        attempts=training.attempt,
        restarts=training.restarts,
        preemptions=training.preemptions,
        gpu_seconds=known.gpu_seconds or 0,
    )


def _waiting(why: str) -> Verdict:
    return Verdict(
        phase=Phase.TRAINING,
        reason=Reason.TRAINING,
        message=f"training has not started: {why}",
        requeue_after=PROGRESS_SECONDS,
    )


def _in_line(job: StepJob, why: str) -> Verdict:
    """Kueue has not admitted it yet, or has taken its place away: it waits, and no clock runs."""
    return Verdict(
        phase=Phase.QUEUED,
        reason=Reason.WAITING_FOR_ADMISSION,
        message=f"queue {job.queue}: {why}",
        requeue_after=PROGRESS_SECONDS,
    )


def _watch(facts: Facts, job: StepJob) -> Verdict:
    if job.suspended and job.queue:
        return _in_line(job, job.workload.waiting if job.workload else "Kueue has not looked at it yet")
    waiting = why_waiting(job)
    if waiting:
        return _waiting(waiting)
    grown = facts.spec.training.active_deadline_seconds
    actions: tuple[Action, ...] = ()
    if job.deadline_seconds is not None and grown > job.deadline_seconds:
        actions = (PatchJob(job.kind, job.name, {"spec": {"activeDeadlineSeconds": grown}}),)
    pod = _running(job)
    if _hang(facts, job) and pod and not pod.deleting:
        actions += (DeletePod(pod.name, pod.uid),)
    # As last heard: between the trainer's last word and its Job's end nobody answers, and nothing has gone back.
    stage = facts.known.training.stage if facts.known.training else None
    evaluating = stage in {Stage.EVALUATING, Stage.PUBLISHING}
    return Verdict(
        phase=Phase.EVALUATING if evaluating else Phase.TRAINING,
        reason=Reason.EVALUATING if evaluating else Reason.TRAINING,
        message=_how_far(facts.known.training or Training()),
        actions=actions,
        requeue_after=PROGRESS_SECONDS,
    )


def _running(job: StepJob) -> StepPod | None:
    """Returns the pod that speaks for all: of several the first."""
    return next((pod for pod in job.pods if pod.index == 0 and pod.running), None)


def _hang(facts: Facts, job: StepJob) -> Failure | None:
    """A trainer that answers but stands still is killed: the Job starts another, which resumes from the checkpoint.

    One that does not answer at all is left alone: what is broken may be the network between.
    """
    limit = facts.spec.training.failure_policy.heartbeat_timeout_seconds
    pod, progress = _running(job), facts.seen.progress
    if pod is None or progress is None or facts.now - progress.heartbeat <= limit:
        return None
    message = (
        f"pod {pod.name} made no progress for more than {limit} s (heartbeatTimeoutSeconds) at step {progress.step}, "
        f"{progress.stage}: it is deleted, and the next one resumes from the last checkpoint"
    )
    return Failure(reason=Reason.HEARTBEAT_LOST, retriable=True, pod=pod.name, node=pod.node or None, message=message)


_DOES: dict[str, str] = {
    Stage.LOADING: "the trainer reads model and data",
    Stage.GATING: "the model is asked before it is trained, also with a demonstration before its eyes",
    Stage.TRAINING: "the first step",
    Stage.EVALUATING: "all steps are done: what it has learned and kept is measured",
    Stage.PUBLISHING: "what was measured is good: the version is written",
}


def _how_far(training: Training) -> str:
    if not training.stage:
        return "the trainer starts"
    if not training.step or training.stage != Stage.TRAINING:
        return _DOES.get(training.stage, f"stage {training.stage}")
    checkpoint = f", checkpoint at {training.last_checkpoint_step}" if training.last_checkpoint_step else ""
    return f"step {training.step} of {training.total_steps}{checkpoint}"
