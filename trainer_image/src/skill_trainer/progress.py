"""What a running trainer says about itself over HTTP: /progress for the operator, /metrics for Prometheus.

A thread serves the newest state and never waits for the training loop, nor the loop for it. Labels are bounded: parts
of a step, gates and signatures, never a name that a user or a digest chose.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from skill_contract.evaluation import Alarm
from skill_contract.progress import Progress, Stage
from skill_contract.step import PROGRESS_PORT

Part = Literal["generate", "teacher", "student", "backward", "optimizer", "probe"]
Score = Literal["in_context_gain", "new_skill", "retention", "probe_new_skill", "probe_retention"]
"""Retention is the worst suite's share of what the parent could."""

_GAUGES = {
    "step": "Optimiser steps done",
    "planned_steps": "Optimiser steps of the whole run",
    "loss": "Loss of the last step",
    "divergence": "Divergence of student and teacher in the last step, nats per token",
    "drift": "How much less probable the parent's own answers are at the last probe, nats per token",
    "teacher_drift": "How much less probable they are to an averaged teacher, nats per token",
    "entropy": "Entropy of the student on its own samples in the last step, nats per token",
    "gradient_norm": "Norm of the last step's gradient before clipping",
    "tokens_per_second": "Completion tokens sampled and trained on per second of the last step",
    "memory_bytes": "Memory of the process, or of the accelerator where there is one",
    "checkpoint_seconds": "Seconds that the upload of the last checkpoint took, beside training",
}


class ProgressServer:
    """Serves the newest state on a port until it is closed; a context manager."""

    def __init__(self, port: int = PROGRESS_PORT, *, clock: Callable[[], float] = time.time) -> None:
        """Starts to serve at once. Port 0 takes a free one.

        Raises:
            OSError: where the port is taken.
        """
        self._clock = clock
        self._lock = threading.Lock()  # a checkpoint on its way to the store tells, too, from a thread of its own
        self._progress = Progress(stage=Stage.LOADING, heartbeat=clock())
        self._metrics = _Metrics()
        self._http = _Server(_handler(lambda: self._progress.dump_json().encode(), self._metrics.encode), port)
        self._thread = threading.Thread(target=self._http.serve_forever, name="progress", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._http.server_port

    @property
    def progress(self) -> Progress:
        """The state that /progress answers now."""
        return self._progress

    def update(
        self,
        *,
        stage: Stage | None = None,
        step: int | None = None,
        total: int | None = None,
        eta_seconds: float | None = None,
        last_checkpoint: int | None = None,
        seconds: Mapping[Part, float] | None = None,
        scores: Mapping[Score, float] | None = None,
        alarms: Sequence[Alarm] | None = None,
        **gauges: float | None,
    ) -> None:
        """Takes over what is given, keeps the rest, and sets the heartbeat to now.

        `seconds` are those of the last step by part and are added up; `alarms` are all so far. `gauges` are loss,
        divergence, drift, teacher_drift, entropy, gradient_norm, tokens_per_second, memory_bytes and
        checkpoint_seconds. A number that is not finite is shown as missing.

        Raises:
            TypeError: for a gauge that does not exist.
        """
        if unknown := gauges.keys() - _GAUGES.keys():
            raise TypeError(f"no such gauge: {sorted(unknown)}")
        with self._lock:
            finite = {name: value for name, value in gauges.items() if value is not None and math.isfinite(value)}
            lost = dict.fromkeys(gauges.keys() - finite.keys())
            given: dict[str, Any] = {"stage": stage, "step": step, "total": total, "last_checkpoint": last_checkpoint}
            given["eta_seconds"] = eta_seconds if eta_seconds is not None and math.isfinite(eta_seconds) else None
            given["scores"] = {**self._progress.scores, **(scores or {})}
            given["alarms"] = None if alarms is None else tuple(alarms)
            changed = {name: value for name, value in given.items() if value is not None}
            changed |= {name: value for name, value in {**finite, **lost}.items() if name in Progress.model_fields}
            self._progress = self._progress.model_copy(update=changed | {"heartbeat": self._clock()})
            counts = {
                name: float(value) for name, value in (("step", step), ("planned_steps", total)) if value is not None
            }
            self._metrics.set({**finite, **counts, **dict.fromkeys(lost, math.nan)}, seconds or {}, scores or {})
            self._metrics.raise_alarms(alarms or ())

    def close(self) -> None:
        """Stops to serve and frees the port."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Metrics:
    """The trainer's metrics in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        gauge = partial(Gauge, namespace="skill_trainer", registry=self._registry)
        counter = partial(Counter, namespace="skill_trainer", registry=self._registry)
        self._gauges = {name: gauge(name, text) for name, text in _GAUGES.items()}
        self._seconds = counter("part_seconds", "Seconds of training by part of the step", ["part"])
        self._scores = gauge("score", "Newest share of right answers by gate", ["gate"])
        self._alarms = gauge("alarm", "Step at which a monitor has seen a signature", ["signature"])
        self._heartbeat = gauge("heartbeat_timestamp_seconds", "Unix time of the last progress")

    def set(self, gauges: Mapping[str, float], seconds: Mapping[Part, float], scores: Mapping[Score, float]) -> None:
        for name, value in gauges.items():
            self._gauges[name].set(value)
        for part, spent in seconds.items():
            self._seconds.labels(part).inc(spent)
        for gate, score in scores.items():
            self._scores.labels(gate).set(score)
        self._heartbeat.set_to_current_time()

    def raise_alarms(self, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            self._alarms.labels(alarm.signature.value).set(alarm.step)

    def encode(self) -> bytes:
        return generate_latest(self._registry)


class _Server(ThreadingHTTPServer):
    """Listens on IPv4 and, where the machine has it, on IPv6."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int) -> None:
        super().__init__(("", port), handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _handler(progress: Callable[[], bytes], metrics: Callable[[], bytes]) -> type[BaseHTTPRequestHandler]:
    pages = {"/progress": (progress, "application/json"), "/metrics": (metrics, CONTENT_TYPE_PLAIN_0_0_4)}

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_error(HTTPStatus.NOT_FOUND, "only /progress and /metrics are here")
                return
            body = page[0]()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", page[1])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Says nothing: the operator asks every few seconds."""

    return Handler
