"""Train: one Job that trains, evaluates and publishes; its progress, its restarts, and how it is stopped when it hangs.

Pure.
"""

from __future__ import annotations

from skill_contract.outcome import Outcome, Result
from skill_contract.progress import Progress, Stage
from skill_contract.step import Step
from skill_operator.actions import Action, CreateJob, DeleteJob, DeletePod, News, PatchJob
from skill_operator.api import ConditionType, Phase, Reason, to_rfc3339
from skill_operator.manifests.jobset import train_workload
from skill_operator.manifests.serving import version_uri
from skill_operator.observed import StepJob
from skill_operator.status import Failure, Published, Status, Training
from skill_operator.steps.answers import MAX_RUNS, Said, answer, lost_too_often, too_slow, why_waiting
from skill_operator.steps.verdict import PROGRESS_SECONDS, Facts, Verdict, fail, missed, reached

NO_CONTEXT_GAIN = "NoInContextGain"
"""The one rejection that comes before any training."""


def learn_training(facts: Facts) -> Status:
    """Returns what is known of a run: how far it is, how often it was started, and its result once it has one."""
    job = facts.seen.job(Step.TRAIN)
    if job is None or facts.known.condition(ConditionType.TRAINED):
        return facts.known
    training = _counted(_progressed(facts.known.training or Training(), facts.seen.progress), job)
    known = facts.learn(training=training, gpu_seconds=_gpu_seconds(facts, job))
    said = answer(job) or _overdue(facts, job)
    if said is None or said.lost:
        return known
    if said.failure:
        known = known.model_copy(update={"failure": said.failure})
        return missed(facts, known, ConditionType.TRAINED, said.failure.reason, said.failure.message)
    assert said.outcome is not None
    return _judged(facts, known, said.outcome)


def _judged(facts: Facts, known: Status, outcome: Outcome) -> Status:
    known = known.model_copy(update={"evaluation": outcome.evaluation or known.evaluation})
    reason, message = outcome.reason, outcome.message
    if outcome.outcome != Result.SUCCEEDED:
        known = known.model_copy(update={"failure": Failure(reason=reason, message=message)})
        trained = missed if reason == NO_CONTEXT_GAIN else reached
        known = trained(facts, known, ConditionType.TRAINED, reason, message)
        return missed(facts, known, ConditionType.EVALUATED, reason, message)
    uri = version_uri(facts.spec.model.uri, outcome.version)
    published = Published(version=outcome.version, digest=outcome.digest, uri=uri)
    known = known.model_copy(update={"published": published})
    known = reached(facts, known, ConditionType.TRAINED, reason, message)
    known = reached(facts, known, ConditionType.EVALUATED, "GatesPassed", message)
    return reached(facts, known, ConditionType.PUBLISHED, reason, f"{outcome.version} at {uri}")


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
    return None if value is None else float(f"{value:.4g}")


def _counted(training: Training, job: StepJob) -> Training:
    # Failed pods may be gone by now (drained nodes, a Job made anew after a suspension): counts never fall.
    failures = job.failures - 1 if job.failed else job.failures
    restarts = max(training.restarts, failures)
    preemptions = max(training.preemptions, job.preemptions)
    has_started = bool(job.pods) and job.pods[0].started is not None
    attempt = max(training.attempt, 1 + restarts + preemptions) if has_started else training.attempt
    return training.model_copy(update={"restarts": restarts, "preemptions": preemptions, "attempt": attempt})


def _gpu_seconds(facts: Facts, job: StepJob) -> int:
    times = [(pod.started, pod.finished or facts.now) for pod in job.pods if pod.running or pod.finished]
    held = sum(end - start for start, end in times if start is not None)
    # Whole minutes: a number that grew with every look would be a status write with every look.
    minutes = int(held * facts.spec.training.gpus_per_node // 60)
    return max(facts.known.gpu_seconds or 0, minutes * 60)


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
    return fail(facts, facts.known.failure, phase=phase, actions=_stop(facts))


def _stop(facts: Facts) -> tuple[Action, ...]:
    """A Job that would start further pods (after an out-of-memory) is suspended: no new pods, and the logs stay."""
    job = facts.seen.job(Step.TRAIN)
    if job is None or job.is_over or job.deleting:
        return ()
    if job.queue:  # Kueue alone suspends and resumes what stands in its queues
        return (DeleteJob(job.kind, job.name, job.uid),)
    return () if job.suspended else (PatchJob(job.kind, job.name, {"spec": {"suspend": True}}),)


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
    manifest = train_workload(facts.update, facts.spec, facts.images, run)
    return Verdict(
        phase=Phase.TRAINING,
        reason=Reason.TRAINING,
        message="training starts",
        actions=(CreateJob(manifest),),
        requeue_after=PROGRESS_SECONDS,
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
    stopped, news = _heartbeat(facts, job)
    # As last heard: between the trainer's last word and its Job's end nobody answers, and nothing has gone back.
    stage = facts.known.training.stage if facts.known.training else None
    evaluating = stage in {Stage.EVALUATING, Stage.PUBLISHING}
    return Verdict(
        phase=Phase.EVALUATING if evaluating else Phase.TRAINING,
        reason=Reason.EVALUATING if evaluating else Reason.TRAINING,
        message=_how_far(facts.known.training or Training()),
        actions=actions + stopped,
        news=news,
        requeue_after=PROGRESS_SECONDS,
    )


def _heartbeat(facts: Facts, job: StepJob) -> tuple[tuple[Action, ...], tuple[News, ...]]:
    """A trainer that answers but stands still is killed: the Job starts another, which resumes from the checkpoint.

    One that does not answer at all is left alone: what is broken may be the network between.
    """
    limit = facts.spec.training.failure_policy.heartbeat_timeout_seconds
    pod = next((pod for pod in job.pods if pod.index == 0 and pod.running and not pod.deleting), None)
    progress = facts.seen.progress
    if pod is None or progress is None or facts.now - progress.heartbeat <= limit:
        return (), ()
    message = (
        f"pod {pod.name} made no progress for {facts.now - progress.heartbeat:.0f} s (heartbeatTimeoutSeconds is "
        f"{limit}) at step {progress.step}, {progress.stage}: it is deleted and resumes from its last checkpoint"
    )
    return (DeletePod(pod.name, pod.uid),), (News(Reason.HEARTBEAT_LOST, message, warning=True),)


def _how_far(training: Training) -> str:
    if not training.step:
        return f"stage {training.stage}" if training.stage else "the trainer starts"
    checkpoint = f", checkpoint at {training.last_checkpoint_step}" if training.last_checkpoint_step else ""
    return f"step {training.step} of {training.total_steps}{checkpoint}"
