"""Two machines train together: two launchers that share nothing but the network, each with folders of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from safetensors.torch import load_file

from skill_contract.manifest import VersionRef
from skill_contract.outcome import ExitCode, Outcome, Result
from skill_contract.step import TrainConfig
from skill_store.repository import Repository
from skill_trainer import launch
from skill_trainer.errors import ConfigInvalid
from skill_trainer.report import RunReport


class Machine:
    """One of them: what a pod of a JobSet is."""

    def __init__(self, folder: Path, number: int, port: int, config: TrainConfig) -> None:
        self.message, self.log = folder / "termination.json", folder / "log"
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "SKILL_TERMINATION_LOG": str(self.message),
            "SKILL_SCRATCH": str(scratch), "SKILL_CONFIG": config.dump_json(), "JOB_COMPLETION_INDEX": str(number),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        command = [sys.executable, "-m", "skill_trainer", "train", "--progress-port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    @property
    def outcome(self) -> Outcome:
        assert self.message.exists(), self.log.read_text()
        return Outcome.parse_json(self.message.read_bytes())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    """Starts both machines."""
    with ExitStack() as stack:

        def both(config: TrainConfig, attempt: str = "first") -> list[Machine]:
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
            machines = [Machine(tmp_path / attempt / str(number), number, port, config) for number in range(2)]
            for machine in machines:
                stack.callback(machine.process.kill)
            return machines

        yield both


@pytest.fixture
def kept(config, tmp_path) -> dict[str, object]:
    """Data with something to keep, by which drift is measured."""
    (tmp_path / "kept.jsonl").write_text('{"prompt": "What is it?", "answer": "x"}\n')
    suite = {"name": "kept", "uri": str(tmp_path / "kept.jsonl"), "grader": "exact"}
    return {**config().data.dump(), "retention": [suite]}


@pytest.fixture
def two(config, kept) -> TrainConfig:
    return config(training={**config().training.dump(), "nodes": 2}, data=kept)


def test_two_machines_publish_the_weights_of_one(start, two, config, kept, run_train, tmp_path):
    machines = start(two)
    assert [machine.process.wait(timeout=300) for machine in machines] == [0, 0], machines[1].log.read_text()
    first, second = (machine.outcome for machine in machines)
    assert first == second
    assert (first.outcome, first.reason) == (Result.SUCCEEDED, "Published")
    update = {"namespace": "ns", "name": "say", "uid": "uid-2"}
    alone = config(update=update, model=fresh(config, tmp_path), data=kept)
    outcome = run_train(alone)
    assert outcome.reason == "Published"
    ours, theirs = (weights(*each, tmp_path) for each in ((two, first), (alone, outcome)))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).abs().max() < 1e-4, name
    drifts = [drifts_of(*each) for each in ((two, first), (alone, outcome))]
    assert drifts[0] == [pytest.approx(each, abs=1e-4) for each in drifts[1]]
    assert len(drifts[0]) == 2
    assert all(abs(drift) > 1e-3 for each in drifts[0] for drift in each), "of the student and of its average"


def fresh(config, tmp_path):
    return {**config().model.dump(), "uri": str(tmp_path / "another")}


def drifts_of(settings: TrainConfig, outcome: Outcome) -> list[tuple[float, float]]:
    repository = Repository(settings.model.uri)
    report = repository.read(VersionRef(version=outcome.version, digest=outcome.digest), ".skill/report.json")
    series = RunReport.parse_json(report).series
    return [(point.drift, point.teacher_drift) for point in series if point.drift is not None]


def weights(settings: TrainConfig, outcome: Outcome, tmp_path: Path):
    folder = tmp_path / f"weights-{settings.update.uid}"
    repository = Repository(settings.model.uri)
    repository.download(VersionRef(version=outcome.version, digest=outcome.digest), folder)
    return load_file(folder / "model.safetensors")


def test_one_that_has_to_stop_stops_the_other_and_both_go_on_from_the_checkpoint(start, two, config):
    """SIGTERM to one: all save and exit 75. One that is killed outright: `tests/e2e/test_killed.py`."""
    settings = config(training=two.training.dump(), method={**config().method.dump(), "steps": 12})
    machines = start(settings)
    run = Repository(settings.model.uri).run(settings.update.uid)
    deadline = time.monotonic() + 200
    while not run.checkpoints():
        assert time.monotonic() < deadline, machines[0].log.read_text()
        time.sleep(0.1)
    machines[1].process.send_signal(signal.SIGTERM)
    assert [machine.process.wait(timeout=120) for machine in machines] == [ExitCode.PREEMPTED] * 2
    assert [machine.outcome.outcome for machine in machines] == [Result.PREEMPTED] * 2
    done = run.checkpoints()[-1]
    assert 0 < done < 12
    again = start(settings, "second")
    assert [machine.process.wait(timeout=300) for machine in again] == [0, 0], again[0].log.read_text()
    assert again[0].outcome.reason == "Published"
    assert f"saved step {done} of 12" not in again[0].log.read_text()
    assert f"saved step {done + 1} of 12" in again[0].log.read_text()


def test_environment_that_does_not_say_where_the_others_are_is_refused(monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    monkeypatch.setenv("MASTER_ADDR", "x-node-0-0.x")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(ConfigInvalid, match=r"training\.nodes is 2, but .*MASTER_PORT"):
        launch.machines(2)
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert launch.machines(2) == launch.Machines(2, 1, "x-node-0-0.x", 29500)
    assert launch.machines(1) == launch.Machines()


def test_first_machine_is_looked_for_until_its_name_is_known(monkeypatch):
    monkeypatch.setattr(launch, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(launch, "FIRST_SECONDS", 0.05)
    launch.find_first(launch.Machines(2, 1, "127.0.0.1", 29500), lambda: False)
    nowhere = launch.Machines(2, 1, "first.invalid", 29500)
    with pytest.raises(TimeoutError, match=r"first\.invalid, where all are to meet"):
        launch.find_first(nowhere, lambda: False)
    launch.find_first(nowhere, lambda: True)
