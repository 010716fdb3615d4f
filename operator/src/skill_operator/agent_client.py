"""What the agents beside live engines say: one short request to each pod, whose failure is only silence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from skill_contract.adapters import REPORT_PATH, AdapterReport
from skill_contract.model import ContractError
from skill_operator.observed import ServingPod
from skill_operator.session import PodSession


class AgentClient(PodSession):
    """Asks the pods of a serving target."""

    async def reports(self, pods: Iterable[ServingPod], port: int) -> dict[str, AdapterReport | None]:
        """Returns what each pod's agent says, by the pods' names; None of one that says nothing that can be read."""
        asked = [pod for pod in pods if pod.ip]
        said = await asyncio.gather(*(self._report(pod.ip, port) for pod in asked))
        return {pod.name: report for pod, report in zip(asked, said, strict=True)}

    async def _report(self, ip: str, port: int) -> AdapterReport | None:
        answer = await self._ask(ip, port, REPORT_PATH)
        try:
            return AdapterReport.parse_json(answer[0]) if answer else None
        except ContractError:
            return None
