"""Each rule fires once: a real Prometheus scrapes the operator's own series, of an operator in all kinds of trouble."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import start_http_server

from skill_contract.evaluation import Action, Alarm, Signature
from skill_operator.api import to_rfc3339
from skill_operator.metrics import Metrics
from skill_trainer.progress import ProgressServer
from tests.alerts.prometheus import Prometheus, free_port, prometheus, rules
from tests.operator import raw

pytestmark = pytest.mark.alerts

DAY = 86400.0


class Endpoint:
    """The operator's port of metrics, which can go away and come back."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._stop: Callable[[], None] = lambda: None

    def serve(self, metrics: Metrics) -> None:
        self.close()
        server, thread = start_http_server(self.port, addr="127.0.0.1", registry=metrics.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stop = stop

    def close(self) -> None:
        self._stop()
        self._stop = lambda: None


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint(free_port())
    yield endpoint
    endpoint.close()


def until(what: str, reached: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := reached()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.1)
    return found


def body(name: str, phase: str, since: float, *conditions: tuple[str, str], **status: Any) -> raw.Raw:
    """An update as the watch brings it, whose conditions are true since then."""
    shown = [{"type": t, "status": "True", "reason": r, "lastTransitionTime": to_rfc3339(since)} for t, r in conditions]
    return {
        "metadata": {"namespace": "team", "name": name, "uid": name, "generation": 1},
        "status": {"phase": phase, "conditions": shown, **status},
    }


def updates_in_trouble(now: float) -> list[raw.Raw]:
    since = now - 2 * DAY
    rollback = {"reason": "NotFound", "message": "m", "startedAt": to_rfc3339(since), "deadline": to_rfc3339(since)}
    rollout = {"candidate": "c", "startedAt": to_rfc3339(since), "deadline": to_rfc3339(since), "rollback": rollback}
    return [
        body("stuck", "Training", since),
        body("unwired", "RollingOut", since, ("Stalled", "NotWired")),
        body("queued", "Queued", since, ("Queued", "Queued")),
        body("unapproved", "AwaitingApproval", since, ("Published", "Published")),
        body("falling", "RollingBack", since, ("Stalled", "RollbackFailed"), rollout=rollout),
    ]


def status(**changes: Any) -> raw.Raw:
    return {"conditions": [], **changes}


def make_trouble(metrics: Metrics, now: float) -> None:
    """One turn of an operator for which everything goes wrong."""
    metrics.reconciles.labels("ok").inc(2)
    metrics.reconciles.labels("error").inc(5)
    metrics.reconciles.labels("crash").inc()
    metrics.reconcile_seconds.observe(50)
    metrics.api_requests.labels("GET", "200").inc()
    metrics.api_requests.labels("GET", "503").inc()
    metrics.told("HeartbeatLost")
    rejected = {"type": "Evaluated", "status": "False", "reason": "SkillForgotten"}
    metrics.changed(status(), status(conditions=[rejected]), now)
    metrics.changed(status(), status(training={"restarts": 2}), now)
    rollback = {"reason": "DigestMismatch", "message": "m", "startedAt": "", "deadline": ""}
    rollout = {"candidate": "c", "startedAt": "", "deadline": ""}
    metrics.changed(status(rollout=rollout), status(rollout=rollout | {"rollback": rollback}), now)


@pytest.fixture
def alarmed_trainer() -> Iterator[ProgressServer]:
    with ProgressServer(0) as server:
        alarm = Alarm(signature=Signature.ENTROPY_COLLAPSE, step=40, action=Action.STOP, message="m")
        server.update(alarms=(alarm,))
        yield server


def test_every_rule_fires_in_a_real_prometheus(endpoint: Endpoint, alarmed_trainer: ProgressServer, tmp_path: Path):
    with prometheus(tmp_path, endpoint.port, alarmed_trainer.port) as server:
        seen = until("an alert of no operator", lambda: "SkillOperatorDown" in server.firing() and server.firing())
        metrics = restart(endpoint, server, "0")
        until("an operator that is there again", lambda: "SkillOperatorDown" not in server.firing())
        restarts = itertools.count(1)
        while "SkillOperatorRestarting" not in server.firing():
            metrics = restart(endpoint, server, str(next(restarts)))
        seen |= server.firing()
        seen |= until_all_fire(server, metrics, set(rules()) - {*seen})
    assert seen.keys() == rules().keys()
    for alert in seen.values():
        words = " ".join(alert["annotations"].values())
        assert "<no value>" not in words, words
        assert "{{" not in words
    assert "team/falling" in seen["SkillUpdateRollbackFailed"]["annotations"]["summary"]
    assert "EntropyCollapse at step 40" in seen["SkillTrainingAlarm"]["annotations"]["summary"]


def restart(endpoint: Endpoint, server: Prometheus, version: str) -> Metrics:
    """Puts a new operator in the place of the one before, and waits until it has been scraped."""
    metrics = Metrics(version)
    endpoint.serve(metrics)
    server.shown(f'skill_operator_build_info{{version="{version}"}}')
    return metrics


def until_all_fire(server: Prometheus, metrics: Metrics, wanted: set[str]) -> dict[str, Any]:
    now = time.time()
    seen: dict[str, Any] = {}
    metrics.census.clock = lambda: now - DAY  # nothing has come forward since
    for update in updates_in_trouble(now):
        metrics.census.take(update)
    metrics.active.set(3)
    metrics.last_success.set(now - DAY)
    metrics.last_watch.labels("SkillUpdate").set(now - DAY)
    metrics.beat(lag=30)

    def all_seen() -> bool:
        make_trouble(metrics, now)
        seen.update(server.firing())
        return wanted <= seen.keys()

    try:
        until("every alert", all_seen)
    except AssertionError as error:
        raise AssertionError(f"silent: {sorted(wanted - seen.keys())}") from error
    return seen
