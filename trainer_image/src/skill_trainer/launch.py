"""Starts the processes of a run on this machine and answers for them. Needs no torch: it only waits.

torchrun is not used: it gives its children 30 seconds after SIGTERM, and saving a checkpoint may take minutes. Children
find each other as torchrun's do, by RANK, WORLD_SIZE and MASTER_ADDR, so the trainer can be started by torchrun or
`accelerate launch` instead. Where several machines train together, each has a launcher, and the environment of each
says which it is.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skill_contract.outcome import ExitCode
from skill_store.termination import VARIABLE as TERMINATION_LOG
from skill_trainer.errors import ConfigInvalid

LAUNCHED = "SKILL_LAUNCHED"
"""Set in a process that this module has started."""
LAST_SECONDS = 10.0
"""How long the others may go on after one has failed: most fail with it, at the next thing they do together."""

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
"""Processes of one machine talk to each other, unauthenticated: nobody else shall be able to."""

FIRST_SECONDS = 600.0
"""How long the name of the first machine may be unknown: its pod may still be looking for a node."""
LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines that train together, seen from one of them."""

    count: int = 1
    number: int = 0
    address: str = "127.0.0.1"
    """Of the first one."""
    port: int = 0
    """On which all meet there; 0: whichever is free."""


def machines(count: int) -> Machines:
    """Returns which of `count` machines this one is.

    Source: MASTER_ADDR and MASTER_PORT as torchrun has them; JOB_COMPLETION_INDEX, batch/v1 Indexed Job.

    Raises:
        ConfigInvalid: where the environment does not say it.
    """
    if count == 1:
        return Machines()
    names = ("JOB_COMPLETION_INDEX", "MASTER_ADDR", "MASTER_PORT")
    number, address, port = (os.environ.get(name, "") for name in names)
    if not (number.isdecimal() and address and port.isdecimal()):
        raise ConfigInvalid(
            f"training.nodes is {count}, but {', '.join(names)} do not say where the others are: the operator sets "
            "them in each pod; by hand, set them on each machine, or write nodes: 1"
        )
    return Machines(count, int(number), address, int(port))


def find_first(first: Machines, stopped: Callable[[], bool]) -> None:
    """Returns when the first machine's name is known, or somebody wants to stop.

    Raises:
        TimeoutError: it has stayed unknown.
    """
    deadline = time.monotonic() + FIRST_SECONDS
    while not stopped():
        try:
            socket.getaddrinfo(first.address, first.port)
        except socket.gaierror as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{first.address}, where all are to meet, is not known here: {error}") from error
            time.sleep(LOOK_SECONDS)
        else:
            return


@dataclass(frozen=True, slots=True)
class Ending:
    """How the processes of a run ended."""

    code: int
    """Exit code of the first that failed, 0 where none has; negative for a signal, as subprocess has it."""
    rank: int
    """Who speaks for all of this machine: the one that failed, else the first."""
    message: bytes | None
    """What that one left as its termination message."""


def is_member() -> bool:
    """Returns whether this process is one of several that somebody has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks() -> bool:
    """Returns whether this process may write a termination message: its launcher chooses, else the first one may."""
    return LAUNCHED in os.environ or os.environ.get("RANK", "0") == "0"


def end_with_launcher() -> None:
    """Ends this process when its launcher is gone, however that ended: nobody else would stop it."""
    if LAUNCHED not in os.environ:
        return

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it returns when the launcher's end is closed
        os._exit(1)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


def together(
    count: int, command: Sequence[str], stopped: Callable[[], bool] = lambda: False, among: Machines | None = None
) -> Ending:
    """Runs `command` in `count` processes of one crew on this machine; returns how they ended.

    SIGTERM is passed on to all of them, which have as long as they want. When one fails, the others are killed soon.

    Args:
        stopped: whether SIGTERM has come before.
        among: machines of which each has as many processes; None: this one alone.
    """
    among = among or Machines()
    with tempfile.TemporaryDirectory(prefix="crew-") as name:
        messages = [Path(name) / str(rank) for rank in range(count)]
        shared = {
            "WORLD_SIZE": count * among.count,
            "LOCAL_WORLD_SIZE": count,
            "MASTER_ADDR": among.address,
            "MASTER_PORT": among.port or _free_port(),
            **(LOOPBACK if among.count == 1 else {}),
        }
        processes = []
        for rank, message in enumerate(messages):
            place = among.number * count + rank
            own = {"RANK": place, "LOCAL_RANK": rank, LAUNCHED: 1, TERMINATION_LOG: message}
            processes.append(_start(command, {**shared, **own}))
        before = signal.signal(signal.SIGTERM, lambda *_: _send(processes, signal.SIGTERM))
        if stopped():
            _send(processes, signal.SIGTERM)
        try:
            first = _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.communicate()
            signal.signal(signal.SIGTERM, before)
        rank = 0 if first is None else first
        left = messages[rank]
        return Ending(processes[rank].returncode, rank, left.read_bytes() if left.exists() else None)


def _start(command: Sequence[str], variables: Mapping[str, object]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # noqa: S603 - our own program


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Waits for all; returns who has failed first, as far as that can be told, and None where none has."""
    deadline = float("inf")
    while None in [process.poll() for process in processes]:
        failed = _failed(processes)
        # One that was preempted has left others that may still be saving.
        if deadline == float("inf") and any(processes[rank].returncode != ExitCode.PREEMPTED for rank in failed):
            deadline = time.monotonic() + LAST_SECONDS
        if time.monotonic() > deadline:
            _send(processes, signal.SIGKILL)
            break
        time.sleep(0.1)
    else:
        failed = _failed(processes)
    # One that meets an unknown fault may only have missed another.
    return min(failed, key=lambda rank: (processes[rank].returncode == 1, rank), default=None)


def _failed(processes: Sequence[subprocess.Popen[bytes]]) -> set[int]:
    return {rank for rank, process in enumerate(processes) if process.returncode}


def _send(processes: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        process.send_signal(number)  # nothing where it has ended


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
