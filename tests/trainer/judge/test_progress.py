"""What an operator and a Prometheus read from a running trainer."""

from __future__ import annotations

import math
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from skill_contract.progress import Progress, Stage
from skill_trainer.progress import ProgressServer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def server() -> Iterator[ProgressServer]:
    with ProgressServer(0, clock=Clock()) as server:
        yield server


def get(server: ProgressServer, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
        return answer.read()


def metrics(server: ProgressServer) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(get(server, "/metrics").decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_progress_is_the_contracts_document(server: ProgressServer):
    assert Progress.parse_json(get(server, "/progress")) == Progress(stage=Stage.LOADING, heartbeat=101)
    server.update(stage=Stage.TRAINING, step=3, total=40, loss=1.5, divergence=0.4, tokens_per_second=80, eta_seconds=9)
    server.update(last_checkpoint=3)
    assert Progress.parse_json(get(server, "/progress")) == Progress(
        stage=Stage.TRAINING, step=3, total=40, loss=1.5, divergence=0.4, tokens_per_second=80, eta_seconds=9,
        last_checkpoint=3, heartbeat=103,
    )  # fmt: skip


def test_every_update_is_a_heartbeat(server: ProgressServer):
    before = server.progress.heartbeat
    server.update()
    assert server.progress.heartbeat == before + 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_never_reaches_json(server: ProgressServer, value: float):
    server.update(loss=2.0, divergence=1.0)
    server.update(loss=value, eta_seconds=value)
    assert b"NaN" not in get(server, "/progress")
    progress = Progress.parse_json(get(server, "/progress"))
    assert (progress.loss, progress.divergence, progress.eta_seconds) == (None, 1.0, None)
    assert math.isnan(metrics(server)["skill_trainer_loss",])


def test_metrics(server: ProgressServer):
    server.update(step=1, total=8, loss=1.5, entropy=2.5, gradient_norm=3.5, memory_bytes=1e9, checkpoint_seconds=4)
    for _ in range(2):
        server.update(seconds={"generate": 1.5, "student": 0.5}, scores={"new_skill": 0.4, "retention": 0.97})
    found = metrics(server)
    assert found["skill_trainer_step",] == 1
    assert found["skill_trainer_planned_steps",] == 8
    assert found["skill_trainer_gradient_norm",] == 3.5
    assert found["skill_trainer_checkpoint_seconds",] == 4
    assert found["skill_trainer_part_seconds_total", "generate"] == 3.0
    assert found["skill_trainer_score", "retention"] == 0.97
    assert all(name.startswith("skill_trainer_") for name, *_ in found)


def test_unknown_gauge_is_a_mistake(server: ProgressServer):
    with pytest.raises(TypeError, match="no such gauge"):
        server.update(temperature=3.0)


def test_other_paths_are_not_found(server: ProgressServer):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "/secrets")


def test_port_is_free_after_closing():
    server = ProgressServer(0)
    port = server.port
    server.close()
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.1", port))
