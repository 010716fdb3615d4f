"""What the agents beside live engines say: one short request to each pod, whose failure is only silence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiohttp

from skill_contract.adapters import REPORT_PATH, AdapterReport
from skill_contract.model import ContractError
from skill_operator.observed import ServingPod
from skill_operator.session import Session

TIMEOUT_SECONDS = 3.0
MAX_CONNECTIONS = 32
MAX_BYTES = 64 * 1024


class AgentClient(Session):
    """Asks the pods of a serving target."""

    def __init__(self) -> None:
        super().__init__(seconds=TIMEOUT_SECONDS, connections=MAX_CONNECTIONS)

    async def reports(self, pods: Iterable[ServingPod], port: int) -> dict[str, AdapterReport | None]:
        """Returns what each pod's agent says, by the pods' names; None of one that says nothing that can be read."""
        asked = [pod for pod in pods if pod.ip]
        said = await asyncio.gather(*(self._report(pod.ip, port) for pod in asked))
        return {pod.name: report for pod, report in zip(asked, said, strict=True)}

    async def _report(self, ip: str, port: int) -> AdapterReport | None:
        host = f"[{ip}]" if ":" in ip else ip
        try:
            async with self._session.get(f"http://{host}:{port}{REPORT_PATH}", allow_redirects=False) as response:
                if response.status != 200:
                    return None
                return AdapterReport.parse_json(await response.content.read(MAX_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError):
            return None
