"""The processes of a run end together, whoever ends first, and one of them speaks for all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from skill_contract.outcome import ExitCode, Outcome, Result
from skill_trainer import launch
from tests.trainer.core.conftest import Listener
from tests.trainer.core.test_cli import Trainer


@pytest.fixture
def trainer(tmp_path):
    return Trainer(tmp_path)


def crew_of(count, code, *, stopped=lambda: False):
    """Runs python code in processes of one crew: what the launcher does is seen without loading torch."""
    return launch.together(count, [sys.executable, "-c", f"import os, pathlib, signal, sys, time\n{code}"], stopped)


SAYS = "pathlib.Path(os.environ['SKILL_TERMINATION_LOG']).write_text(os.environ['RANK'])\n"


def test_a_killed_process_ends_all_of_them_soon(monkeypatch):
    """The first one is at work and would not notice, or waits for the other for ever."""
    monkeypatch.setattr(launch, "LAST_SECONDS", 1.0)
    start = time.monotonic()
    ending = crew_of(2, "if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)")
    assert (ending.code, ending.rank, ending.message) == (-signal.SIGKILL, 1, None)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("codes", "code", "speaker"),
    [
        ((0, 0), 0, b"0"),
        ((1, 42), 42, b"1"),  # the first one only saw that the other was gone
        ((75, 75), 75, b"0"),
        ((0, 1), 1, b"1"),
    ],
)
def test_who_knows_the_reason_speaks_for_all(codes, code, speaker):
    ending = crew_of(2, f"{SAYS}sys.exit({codes}[int(os.environ['RANK'])])")
    assert (ending.code, ending.message) == (code, speaker)


def test_sigterm_reaches_all_who_may_take_their_time(monkeypatch):
    monkeypatch.setattr(launch, "LAST_SECONDS", 0.1)
    code = """
def stop(*_):
    time.sleep(1)
    pathlib.Path(os.environ['SKILL_TERMINATION_LOG']).write_text('saved')
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(os.environ['STARTED'] + os.environ['RANK']).touch()
time.sleep(600)
"""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("STARTED", f"{folder}/")
        sender = threading.Thread(target=_terminate_when, args=(lambda: len(list(Path(folder).iterdir())) == 2,))
        sender.start()
        ending = crew_of(2, code)
        sender.join()
    assert (ending.code, ending.rank, ending.message) == (75, 0, b"saved")


def _terminate_when(ready):
    while not ready():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def test_no_process_outlives_its_launcher(tmp_path):
    """Not even one that was killed, and so could tell nobody."""
    child = "import os, pathlib, sys, time; from skill_trainer.launch import end_with_launcher; end_with_launcher(); "
    child += f"pathlib.Path(r'{tmp_path}', str(os.getpid())).touch(); time.sleep(600)"
    code = f"import sys; from skill_trainer import launch; launch.together(2, [sys.executable, '-c', {child!r}])"
    launcher = subprocess.Popen([sys.executable, "-c", code])
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    left = {int(path.name) for path in tmp_path.iterdir()}
    deadline = time.monotonic() + 30
    while any(Path("/proc", str(pid)).exists() and _runs(pid) for pid in left):
        assert time.monotonic() < deadline, "still at work"
        time.sleep(0.05)


def _runs(pid):
    """Returns whether a process is more than a zombie that nobody has buried."""
    try:
        return "State:\tZ" not in Path("/proc", str(pid), "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_processes_stop_with_a_checkpoint_that_one_finishes(trainer, config, run_train):
    """The whole program: SIGTERM to the launcher, exit 75, one answer; then a single process goes on to a version."""
    settings = config(method={**config().method.dump(), "steps": 30})
    process = trainer.start("train", "--processes", "2", "--progress-port", "0", SKILL_CONFIG=settings.dump_json())
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "saved step 2 of 30" in line:
            process.send_signal(signal.SIGTERM)
            break
    lines += process.communicate(timeout=300)[1].splitlines(keepends=True)
    outcome = Outcome.parse_json(trainer.message.read_bytes())
    assert (process.returncode, outcome.outcome) == (ExitCode.PREEMPTED, Result.PREEMPTED), "".join(lines)
    assert sum("Preempted: Preempted" in line for line in lines) == 1
    listener = Listener()
    assert run_train(settings, listener).reason == "Published"
    steps = listener.all("step")
    assert steps[0] >= 2
    assert steps[-1] == 30
