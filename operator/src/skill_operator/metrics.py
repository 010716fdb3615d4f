"""Every Prometheus series of the operator, and the thread that serves them.

Labels are bounded: phases, steps, verdicts, reasons of a closed list. Only the gauges of updates that train now carry
an object's name, and they go when it stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from skill_operator.api import ConditionType, Phase, Reason, to_unix
from skill_operator.status import Status, read

_OF_STEPS = {
    "DigestMismatch", "NotFound", "NoSpace", "AccessDenied", "EngineUnreachable", "EngineRefused", "StoreUnavailable",
}  # fmt: skip
_REASONS = {reason.value for reason in Reason} | _OF_STEPS
_STAGES = {
    ConditionType.CHECKED: None,
    ConditionType.TRAINED: ConditionType.CHECKED,
    ConditionType.ROLLED_OUT: ConditionType.PUBLISHED,
}
"""A milestone, and the one from which its stage is measured (None: from startTime)."""


class Metrics:
    """The series, on a registry of their own."""

    def __init__(self, version: str = "") -> None:
        self.registry = CollectorRegistry()
        gauge, counter, histogram = self._gauge, self._counter, self._histogram
        self.updates = gauge("updates", "SkillUpdates by phase", "phase")
        self.reconciles = counter("reconcile", "Passes by result", "result")
        self.reconcile_seconds = histogram(
            "reconcile_seconds", "Seconds of a pass", (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60)
        )
        self.active = gauge("reconcilers_active", "Updates that are being reconciled")
        self.api_requests = counter("api_requests", "Requests to the API server", "verb", "code")
        hours = (1, 10, 60, 300, 1800, 7200, 28800, 86400)
        self.queue_seconds = histogram("queue_seconds", "Seconds from creation to the update's turn", hours)
        self.stage_seconds = histogram("stage_seconds", "Seconds of a stage", hours, "stage")
        self.training = gauge("training", "Live values of a run", "namespace", "name", "value")
        self.verdicts = counter("gate_verdicts", "Gate verdicts", "verdict")
        self.rollouts = counter("rollouts", "Finished rollouts", "result")
        self.rollbacks = counter("rollbacks", "Rollbacks by reason", "reason")
        self.last_success = gauge("last_successful_reconcile_timestamp_seconds", "Unix time of the last good pass")
        self.loop_lag = gauge("event_loop_lag_seconds", "How late the event loop is")
        self.last_watch = gauge("last_watch_event_timestamp_seconds", "Unix time of the last event", "kind")
        gauge("build_info", "The operator's version", "version").labels(version).set(1)
        self._phases: dict[str, str] = {}

    def serve(self, port: int) -> None:
        """Serves the series on a thread of its own, so that a blocked loop can still be seen."""
        start_http_server(port, registry=self.registry)

    def seen(self, uid: str, phase: str | None) -> None:
        """Takes note of an update's phase; None: it is gone."""
        before = self._phases.pop(uid, None)
        if before is not None:
            self.updates.labels(before).dec()
        if phase is not None:
            known = phase if phase in set(Phase) else Phase.PENDING
            self._phases[uid] = known
            self.updates.labels(known).inc()

    def changed(
        self, namespace: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any], created: float
    ) -> None:
        """Takes note of a status write: stages that ended, verdicts, rollouts, live values.

        Args:
            created: when the update was created, Unix seconds.
        """
        before, after = read(old), read(new)
        self._stages(before, after, created)
        self._verdict(before, after)
        self._live(namespace, name, after)

    def forget(self, namespace: str, name: str) -> None:
        """Drops the live values of an update."""
        self.training.remove_by_labels({"namespace": namespace, "name": name})

    def _live(self, namespace: str, name: str, status: Status) -> None:
        training = status.training
        if training is None or status.condition(ConditionType.TRAINED):
            self.forget(namespace, name)
            return
        live = {"loss": training.loss, "step": training.step, "eta_seconds": training.eta_seconds}
        for value, number in live.items():
            if number is not None:
                self.training.labels(namespace, name, value).set(number)

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

    def _verdict(self, before: Status, after: Status) -> None:
        evaluated = after.condition(ConditionType.EVALUATED)
        if evaluated and not before.condition(ConditionType.EVALUATED):
            self.verdicts.labels("Passed" if evaluated.status == "True" else "Rejected").inc()
        rollback = after.rollout.rollback if after.rollout else None
        if rollback and not (before.rollout and before.rollout.rollback):
            self.rollbacks.labels(rollback.reason if rollback.reason in _REASONS else "Other").inc()
        if after.rollout and after.is_final and not before.is_final:
            self.rollouts.labels("Promoted" if after.is_true(ConditionType.SUCCEEDED) else "NotPromoted").inc()

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"skill_operator_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"skill_operator_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"skill_operator_{name}", text, labels, registry=self.registry, buckets=buckets)


def _seconds(time: str) -> float:
    return to_unix(time) or 0.0
