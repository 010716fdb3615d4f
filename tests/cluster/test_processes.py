"""Processes are started, waited for and ended by what they are, not by a number."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.console import ClusterError
from tests.cluster.processes import Processes, identity

ROOT = Path(__file__).parents[2]
FOREVER = ("sleep", "600")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path, outlive=False)
    yield started
    for file in (tmp_path / "run").glob("*.json"):
        started.kill(file.stem)


def test_a_process_runs_until_it_is_stopped(processes: Processes) -> None:
    pid = processes.start("sleeper", FOREVER)
    assert processes.pid("sleeper") == pid
    processes.stop("sleeper")
    assert processes.pid("sleeper") is None
    assert identity(pid) is None


def test_what_ignores_the_request_to_end_is_made_to_end(processes: Processes) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    pid = processes.start("stubborn", [sys.executable, "-c", stubborn])
    processes.wait("stubborn", lambda: "deaf" in processes.log("stubborn").read_text(), "deafness", 20)
    processes.stop("stubborn", seconds=0.3)
    assert identity(pid) is None


def test_the_port_of_what_was_killed_is_free_at_once(processes: Processes) -> None:
    """A process with threads is a zombie while they still end, and holds its ports that long."""
    code = (
        "import socket, threading; server = socket.create_server(('127.0.0.1', 0)); memory = b'x' * (200 << 20)\n"
        "for _ in range(200): threading.Thread(target=threading.Event().wait).start()\n"
        "print(server.getsockname()[1], flush=True)"
    )
    processes.start("server", [sys.executable, "-c", code])
    processes.wait("server", lambda: processes.log("server").read_text().endswith("\n"), "its port", 30)
    processes.kill("server")
    socket.create_server(("127.0.0.1", int(processes.log("server").read_text()))).close()


def test_another_process_with_the_recorded_id_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    """After a restart of the machine, an id in a stale file belongs to somebody else."""
    with subprocess.Popen(FOREVER) as stranger:
        (tmp_path / "run").mkdir()
        stale = {"pid": stranger.pid, "identity": "another-boot/123"}
        (tmp_path / "run" / "etcd.json").write_text(json.dumps(stale))
        assert processes.pid("etcd") is None
        processes.stop("etcd")
        assert stranger.poll() is None
        stranger.kill()


def test_an_early_end_is_told_with_its_last_words(processes: Processes) -> None:
    processes.start("short", ["sh", "-c", "echo no such luck; exit 1"])
    with pytest.raises(ClusterError, match=r"(?s)short has ended.*no such luck"):
        processes.wait("short", lambda: False, "luck", 20)


def test_waiting_has_an_end(processes: Processes) -> None:
    processes.start("sleeper", FOREVER)
    with pytest.raises(ClusterError, match="the impossible took more than 0 s"):
        processes.wait("sleeper", lambda: False, "the impossible", 0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_a_killed_test_run_takes_its_processes_along(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, signal
from tests.cluster.processes import Processes, wait_until
pid = Processes(pathlib.Path({str(tmp_path)!r}), outlive=False).start("sleeper", {FOREVER!r})
print(pid, flush=True)
# The leash is on when the program has taken the place of the one that puts it on.
wait_until(lambda: pathlib.Path(f"/proc/{{pid}}/comm").read_text() == "sleep\\n", "the start", 10)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    pid, end = int(killed.stdout), time.monotonic() + 10
    while identity(pid) is not None:
        assert time.monotonic() < end
        time.sleep(0.02)
