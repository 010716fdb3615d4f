"""What a step's Job answered: its own last word where it could speak, Kubernetes' word where it could not.

Pure. The termination message is the only channel for results; a Job without one that can be read has not answered.
"""

from __future__ import annotations

from dataclasses import dataclass

from skill_contract.outcome import ExitCode, Outcome, Result
from skill_operator.actions import DeleteJob, PatchJob
from skill_operator.api import Reason
from skill_operator.observed import StepJob, StepPod
from skill_operator.status import Failure

MAX_RUNS = 5
"""How often a step whose answer was lost, or whose question was not heard, is run anew."""
_FIRST_PAUSE_SECONDS = 10
_LONGEST_PAUSE_SECONDS = 300
_TAIL = 1024
_LOST_NODES = ("DeletionByTaintManager", "DeletionByPodGC")
"""Reasons of DisruptionTarget that mean that a pod's node went, and not that somebody wanted its place."""
_JOB_REASONS = {
    "BackoffLimitExceeded": Reason.RETRIES_EXHAUSTED,
    "ReachedMaxRestarts": Reason.RETRIES_EXHAUSTED,  # a JobSet's
}
_KNOBS = {
    "train": "raise spec.training.resources, or lower spec.method.batchSize or spec.method.rollout.maxNewTokens",
    "check": "the training data or the model's configuration is larger than the check step's memory",
}
_DEADLINES = {
    "train": "create a new SkillUpdate with a larger spec.training.activeDeadlineSeconds",
    "check": "see whether its pod could start (image, node, quota) and reach the store, then create a new SkillUpdate",
}


@dataclass(frozen=True, slots=True)
class Said:
    """The end of a step's Job: exactly one of the three is set."""

    outcome: Outcome | None = None
    """Succeeded or Rejected."""
    failure: Failure | None = None
    lost: bool = False
    """It ended well, but its pod was gone before its answer could be read: run it again, steps are idempotent."""

    @property
    def is_store_away(self) -> bool:
        """Says nothing about anything: the question is asked until it is heard, however long that takes."""
        return self.failure is not None and self.failure.reason == Reason.STORE_UNAVAILABLE


def answer(job: StepJob) -> Said | None:
    """Returns what a Job answered, or None while it still may."""
    if job.complete:
        spoke = [pod for pod in job.pods if pod.exit_code == ExitCode.FINISHED and _is_an_answer(pod.outcome)]
        return _last_word(min(spoke, key=lambda pod: pod.index)) if spoke else Said(lost=True)
    exhausted = next((pod for pod in job.pods if pod.out_of_memory), None)
    if exhausted:
        return Said(failure=_out_of_memory(job, exhausted))
    if job.failed:
        return Said(failure=_failure(job))
    return None


def _is_an_answer(outcome: Outcome | None) -> bool:
    """Of several machines only the first has a version to name; a success without one says nothing."""
    return outcome is not None and (outcome.outcome != Result.SUCCEEDED or bool(outcome.version and outcome.digest))


def _last_word(pod: StepPod) -> Said:
    outcome = pod.outcome
    assert outcome is not None
    if outcome.outcome in {Result.SUCCEEDED, Result.REJECTED}:
        return Said(outcome=outcome)
    return Said(failure=_located(pod, reason=outcome.reason, message=outcome.message))


def _out_of_memory(job: StepJob, pod: StepPod) -> Failure:
    knob = _KNOBS.get(job.step, "the step's memory is too small for the model's golden prompts")
    message = f"pod {pod.name} ran out of memory on node {pod.node or 'unknown'}: {knob}, in a new SkillUpdate"
    return _located(pod, reason=Reason.OUT_OF_MEMORY, message=message)


def _failure(job: StepJob) -> Failure:
    if job.failed_reason == "DeadlineExceeded":
        return too_slow(job, job.deadline_seconds)
    pod = _culprit(job)
    reason = _JOB_REASONS.get(job.failed_reason, Reason.CRASHED)
    if pod is None:
        return Failure(reason=reason, retriable=True, message=f"{job.kind} {job.name}: {job.failed_message or reason}")
    if pod.outcome and pod.outcome.outcome in {Result.FAILED, Result.REJECTED}:
        retriable = pod.exit_code != ExitCode.USER_ERROR
        return _located(pod, reason=pod.outcome.reason, message=pod.outcome.message, retriable=retriable)
    last = f"last with exit code {pod.exit_code}: {_tail(pod)}"
    message = f"{job.step} ended {job.failures} times without a result, {last}"
    return _located(pod, reason=reason, message=message, retriable=True)


def _tail(pod: StepPod) -> str:
    return pod.message.strip()[-_TAIL:] or "it left no message"


def _culprit(job: StepJob) -> StepPod | None:
    """Of several that failed together, the one that knows why; the others may only have missed it."""
    failed = [pod for pod in job.pods if pod.exit_code]
    return next((pod for pod in failed if pod.exit_code == ExitCode.USER_ERROR), failed[0] if failed else None)


def too_slow(job: StepJob, seconds: int | None) -> Failure:
    """Returns the failure of a Job that ran longer than `seconds`.

    The pod that ran too long is deleted: those that are left failed earlier, of something else.
    """
    knob = _DEADLINES.get(job.step, "see whether its pod could start, and reach the store and the serving pods")
    message = f"{job.kind} {job.name} did not end within {seconds} s: {knob}"
    return Failure(reason=Reason.DEADLINE_EXCEEDED, retriable=True, message=message)


def _located(pod: StepPod, *, reason: str, message: str, retriable: bool = False) -> Failure:
    return Failure(
        reason=reason,
        retriable=retriable,
        exit_code=pod.exit_code,
        pod=pod.name,
        node=pod.node or None,
        message=message,
    )


def next_run(job: StepJob, now: float) -> float:
    """Returns when a step that was not heard is run anew: 10, 20, 40, … and at most 300 s after the run before."""
    doublings = min(job.run - 1, 10)
    return (job.finished or now) + min(_FIRST_PAUSE_SECONDS * 2.0**doublings, _LONGEST_PAUSE_SECONDS)


def outdated(jobs: tuple[StepJob, ...], step: str) -> tuple[DeleteJob, ...]:
    """Returns what is to be deleted before a further run: in a day without a store hundreds would pile up."""
    runs = sorted((job for job in jobs if job.step == step), key=lambda job: job.run)
    return tuple(DeleteJob(job.kind, job.name, job.uid) for job in runs[: 1 - MAX_RUNS] if not job.deleting)


def interruption(job: StepJob) -> Failure | None:
    """Returns why the newest pod that ended did not end its Job: the Job goes on by itself."""
    pod = next((pod for pod in job.pods if pod.is_preempted or pod.exit_code), None)
    if pod is None or pod.exit_code == ExitCode.USER_ERROR:
        return None
    if pod.disruption.startswith(_LOST_NODES):
        message = f"pod {pod.name} was lost with node {pod.node} ({pod.disruption}); this costs no restart"
        return _located(pod, reason=Reason.NODE_LOST, message=message, retriable=True)
    if pod.is_preempted:
        why = pod.disruption or (pod.outcome.message if pod.outcome else "it got SIGTERM")
        message = f"pod {pod.name} was stopped from outside ({why}); this costs no restart"
        return _located(pod, reason=Reason.PREEMPTED, message=message, retriable=True)
    if pod.outcome:
        return _located(
            pod, reason=pod.outcome.reason, message=f"pod {pod.name}: {pod.outcome.message}", retriable=True
        )
    message = f"pod {pod.name} ended with exit code {pod.exit_code}: {_tail(pod)}"
    return _located(pod, reason=Reason.CRASHED, message=message, retriable=True)


def no_more_pods(job: StepJob | None) -> tuple[PatchJob | DeleteJob, ...]:
    """Returns what stops a Job that has failed for us and not for Kubernetes: no new pods, and the logs stay."""
    if job is None or job.is_over or job.deleting:
        return ()
    if job.queue:  # Kueue alone suspends and resumes what stands in its queues
        return (DeleteJob(job.kind, job.name, job.uid),)
    return () if job.suspended else (PatchJob(job.kind, job.name, {"spec": {"suspend": True}}),)


def lost_too_often(job: StepJob) -> Failure:
    """Returns the failure of a step whose answer was lost in every run."""
    message = (
        f"the pods of {job.name} and of {job.run - 1} runs before it were gone before their results could be read: "
        "something in the cluster removes finished pods at once"
    )
    return Failure(reason=Reason.OUTCOME_LOST, retriable=True, message=message)


def why_waiting(job: StepJob) -> str:
    """Returns why a running Job's pods do not all run, in Kubernetes' words; empty where they do or will soon."""
    if job.suspended:
        return f"its {job.kind} is suspended, by a queue such as Kueue or by hand"
    newest = {pod.index: pod for pod in reversed(job.pods)}.values()
    return next((pod.waiting for pod in newest if pod.waiting and pod.exit_code is None), "")
