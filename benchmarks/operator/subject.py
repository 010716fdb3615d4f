"""The operator as it runs in its pod: a process, what it needs, and what it says of itself."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from tests.cluster.controlplane import ControlPlane

from benchmarks.operator.plane import OPERATOR

_TICKS = os.sysconf("SC_CLK_TCK")
_NAME = "skill-operator"
DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def _of_image() -> dict[str, str]:
    """Returns how the operator's image has memory given back."""
    found = dict(re.findall(r"\b(MALLOC_\w+)=(\d+)", DOCKERFILE.read_text()))
    if not found:
        raise ValueError(f"{DOCKERFILE} sets no MALLOC_…: what is measured would not be what runs")
    return found


@dataclass
class Subject:
    """A process that is measured."""

    plane: ControlPlane
    pid: int
    started: float
    port: int

    @classmethod
    def start(cls, plane: ControlPlane) -> Subject:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = int(server.getsockname()[1])
        environment = {
            "KUBECONFIG": str(plane.kubeconfig_for(OPERATOR)),
            "SKILL_TRAINER_IMAGE": "trainer:1",
            "SKILL_STORE_IMAGE": "store:1",
            "SKILL_METRICS_PORT": str(port),
            "SKILL_HEALTH_PORT": "0",
            **_of_image(),
        }
        started = time.time()
        command = [sys.executable, "-m", "skill_operator.cli", "run"]
        return cls(plane, plane.processes.start(_NAME, command, environment), started, port)

    def stop(self) -> None:
        self.plane.processes.stop(_NAME, seconds=20)

    @property
    def log(self) -> Path:
        return self.plane.processes.log(_NAME)

    def cpu_seconds(self) -> float:
        """Source: proc(5), fields 14 and 15 of stat."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident(self, *, peak: bool = False) -> int:
        """Returns bytes; `peak`: the most that they ever were."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.findall(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+)", status)[0])

    async def series(self) -> dict[str, float]:
        """Returns what it says at /metrics; nothing as long as it does not answer."""
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            url = f"http://127.0.0.1:{self.port}/metrics"
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return {}
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def until_training(self, active: int, seconds: float) -> None:
        """Waits until so many updates train."""
        await self._until(lambda said: said.get('skill_operator_updates{phase="Training"}') == active, seconds)

    async def until_reconciled(self, objects: int, active: int, seconds: float) -> float:
        """Returns the seconds from the process' start until every update was seen and every active one looked at."""

        def is_reconciled(said: dict[str, float]) -> bool:
            seen = sum(value for name, value in said.items() if name.startswith("skill_operator_updates{"))
            passes = said.get('skill_operator_reconciles_total{result="ok"}', 0)
            return seen == objects and passes >= active == said.get("skill_operator_reconcilers_active")

        await self._until(is_reconciled, seconds)
        return time.time() - self.started

    async def _until(self, reached: Callable[[dict[str, float]], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not reached(await self.series()):
            self.plane.processes.require(_NAME)
            if time.monotonic() > end:
                raise TimeoutError(f"the operator did not get there in {seconds:.0f} s; its log is {self.log}")
            await asyncio.sleep(0.2)
