"""Every Prometheus series of the operator, and the thread that serves them. Their list: docs/metrics.md.

Counters and histograms of what has happened, here; gauges of what there is now, in `census`. Labels are bounded:
phases, steps, verdicts, reasons of a closed list. Only updates that are not settled have series with their name.
A counter's labels are there from the start, at 0: a rate cannot see a series that begins at 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from skill_operator.api import ConditionType, Reason, to_unix
from skill_operator.census import Census
from skill_operator.status import Status, Training, read

PULSE_SECONDS = 1.0
"""How often the event loop is asked for a sign of life."""

_OF_ROLLBACKS = (
    Reason.ANALYSIS_FAILED, Reason.ANALYSIS_INCONCLUSIVE, Reason.DELETING, Reason.ENGINE_CRASH, Reason.HEAD_MOVED,
    Reason.OUTPUT_MISMATCH, Reason.POD_NOT_CREATED, Reason.PROGRESS_DEADLINE, Reason.ROLLOUT_ABORTED,
    Reason.FETCH_FAILED, Reason.SOAK_UNSTEADY, Reason.SURGE_BLOCKED, "AccessDenied", "AdapterRefused", "BaseMismatch",
    "DigestMismatch", "EngineRefused", "EngineUnreachable", "NoSpace", "NotFound",
)  # fmt: skip
_OF_EVENTS = (
    "Checked", "CheckpointSaved", "DraftModel", "FirstPodProved", "GatePassed", "GateRejected", "HeartbeatLost",
    "MixedChange", "NotHeld", "PodVerified", "Preempted", "Promoted", "Resumed", "Reverted", "RollbackStarted",
    "RolledBack", "RolloutHeld", "RolloutStarted", "TrainingStarted", "VersionPublished",
)  # fmt: skip
OTHER = "Other"
"""Stands for every label value that is not of the closed list."""
_STAGES = {
    ConditionType.CHECKED: None,
    ConditionType.TRAINED: ConditionType.CHECKED,
    ConditionType.ROLLED_OUT: ConditionType.PUBLISHED,
}
"""A milestone, and the one from which its stage is measured (None: from startTime)."""
_MINUTES = (5, 15, 30, 60, 120, 300, 600, 1800, 3600)
_HOURS = (1, 10, 60, 300, 1800, 7200, 28800, 86400)


class Metrics:
    """The series, on a registry of their own."""

    def __init__(self, version: str = "", clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self.census = Census(clock)
        self.registry.register(self.census)
        ProcessCollector(namespace="skill_operator", registry=self.registry)
        self._count_passes()
        self._count_lives()
        self._gauge("build_info", "1, labelled with the operator's version", "version").labels(version).set(1)

    def _count_passes(self) -> None:
        """The operator at work: is it alive, and does it come forward?"""
        self.reconciles = self._counter("reconciles", "Passes over an update by result", "result")
        _begin(self.reconciles, ("ok", "conflict", "error", "crash"))
        self.reconcile_seconds = self._histogram(
            "reconcile_seconds", "Seconds that a successful pass took", (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60)
        )
        self.active = self._gauge("reconcilers_active", "Updates that are being reconciled")
        self.api_requests = self._counter(
            "api_requests", "Requests to the API server by HTTP method and status; code none: no answer", "verb", "code"
        )
        self.last_success = self._gauge(
            "last_successful_reconcile_timestamp_seconds",
            "Unix time of the last successful pass; before the first, of the start",
        )
        self.last_success.set(self._clock())
        self._gauge("start_timestamp_seconds", "Unix time of the operator's start").set(self._clock())
        self.last_watch = self._gauge(
            "last_watch_event_timestamp_seconds", "Unix time of the last event that a watch brought", "kind"
        )
        for kind in ("SkillUpdate", "child", "Deployment"):
            self.last_watch.labels(kind).set(self._clock())
        self.last_write = self._gauge(
            "last_status_write_timestamp_seconds", "Unix time of the last status written; its watch event must follow"
        )
        self._lag, self._beaten = 0.0, float("inf")
        lag = self._gauge("event_loop_lag_seconds", "How late the event loop is, also while it is blocked")
        lag.set_function(self._lateness)

    def _count_lives(self) -> None:
        """What became of updates."""
        counter, histogram = self._counter, self._histogram
        self.queue_seconds = histogram("queue_wait_seconds", "Seconds from an update's creation to its turn", _HOURS)
        self.stage_seconds = histogram(
            "stage_seconds", "Seconds of a stage by the milestone at its end", _HOURS, "stage"
        )
        _begin(self.stage_seconds, _STAGES)
        self.verdicts = counter("gate_verdicts", "Verdicts of the gates", "verdict")
        _begin(self.verdicts, ("Passed", "Rejected"))
        self.gains = histogram(
            "new_skill_gain", "Score of the new skill after training minus before", (-0.1, 0, 0.05, 0.1, 0.2, 0.4, 0.8)
        )
        self.retentions = histogram(
            "worst_retention_ratio", "Score after divided by before of each update's worst earlier skill",
            (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1, 1.05),
        )  # fmt: skip
        self.rollouts = counter("rollouts", "Finished rollouts by result", "result")
        _begin(self.rollouts, ("Promoted", "NotPromoted"))
        self.rollbacks = counter("rollbacks", "Rollbacks begun, by reason", "reason")
        _begin(self.rollbacks, (*_OF_ROLLBACKS, OTHER))
        self.rollback_seconds = histogram(
            "rollback_seconds",
            "Seconds from a fault to every pod back on the version before, less what a person took to decide",
            _MINUTES,
        )
        self.events = counter("events", "Kubernetes Events posted, by reason", "reason")
        _begin(self.events, (*_OF_EVENTS, OTHER))
        self.restarts = counter("training_restarts", "Training pods started again after a fault")
        self.preemptions = counter("training_preemptions", "Training pods stopped from outside")
        self.gpu_seconds = counter("gpu_seconds", "GPU seconds that training pods held")

    def serve(self, port: int) -> None:
        """Serves the series on a thread of its own, so that a blocked loop can still be seen."""
        start_http_server(port, registry=self.registry)

    def beat(self, lag: float) -> None:
        """Takes note that the event loop turns, `lag` seconds late."""
        self._lag, self._beaten = lag, time.monotonic()

    def _lateness(self) -> float:
        return max(self._lag, time.monotonic() - self._beaten - PULSE_SECONDS)

    def told(self, reason: str) -> None:
        """Takes note of an Event that was posted."""
        known = reason if reason in set(Reason) or reason in _OF_EVENTS else OTHER
        self.events.labels(known).inc()

    def changed(self, old: Mapping[str, Any], new: Mapping[str, Any], created: float) -> None:
        """Takes note of a status write: what the new status says for the first time.

        Args:
            created: when the update was created, Unix seconds.
        """
        before, after = read(old), read(new)
        self.last_write.set(self._clock())
        self._stages(before, after, created)
        self._trained(before, after)
        self._judged(before, after)
        self._rolled_out(before, after)

    def _stages(self, before: Status, after: Status, created: float) -> None:
        if after.start_time and not before.start_time:
            self.queue_seconds.observe(max(0.0, _seconds(after.start_time) - created))
        for end, begin in _STAGES.items():
            ended = after.condition(end)
            if ended is None or before.condition(end):
                continue
            started = after.condition(begin) if begin else None
            since = started.last_transition_time if started else after.start_time
            if since:
                self.stage_seconds.labels(end.value).observe(_seconds(ended.last_transition_time) - _seconds(since))

    def _trained(self, before: Status, after: Status) -> None:
        old, new = before.training or Training(), after.training or Training()
        # A status that somebody emptied is learnt anew, and would be counted twice: that is not worth a memory here.
        self.restarts.inc(max(0, new.restarts - old.restarts))
        self.preemptions.inc(max(0, new.preemptions - old.preemptions))
        self.gpu_seconds.inc(max(0, (after.gpu_seconds or 0) - (before.gpu_seconds or 0)))

    def _judged(self, before: Status, after: Status) -> None:
        judged = after.condition(ConditionType.EVALUATED)
        if judged is None or before.condition(ConditionType.EVALUATED):
            return
        self.verdicts.labels("Passed" if judged.status == "True" else "Rejected").inc()
        if after.evaluation and after.evaluation.new_skill:
            self.gains.observe(after.evaluation.new_skill.gain)
        if after.evaluation and after.evaluation.worst_retention is not None:
            self.retentions.observe(after.evaluation.worst_retention)

    def _rolled_out(self, before: Status, after: Status) -> None:
        rollback = after.rollout.rollback if after.rollout else None
        if rollback and not (before.rollout and before.rollout.rollback):
            self.rollbacks.labels(rollback.reason if rollback.reason in _OF_ROLLBACKS else OTHER).inc()
        was_back = before.rollout and before.rollout.rollback and before.rollout.rollback.finished_at
        if rollback and rollback.seconds is not None and not was_back:
            self.rollback_seconds.observe(rollback.seconds)
        if after.rollout and after.is_final and not before.is_final:
            self.rollouts.labels("Promoted" if after.is_true(ConditionType.SUCCEEDED) else "NotPromoted").inc()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"skill_operator_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"skill_operator_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"skill_operator_{name}", text, labels, registry=self.registry, buckets=buckets)


def _begin(family: Counter | Histogram, values: Iterable[str]) -> None:
    for value in values:
        family.labels(value)


def _seconds(time: str) -> float:
    return to_unix(time) or 0.0
