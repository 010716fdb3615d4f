"""Pods whose engines take adapters: what kubelet, agent and engine do together, played from the ConfigMap.

Each pod has an address of its own on the loopback, at which its agent reports as a real one does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from aiohttp import web

from skill_contract.adapters import REPORT_PATH, AdapterReport, Told
from skill_contract.manifest import FetchMessage
from tests.cluster.controlplane import free_port
from tests.operator import raw
from tests.operator.api.place import Place, serves_what_it_is_told
from tests.operator.live import BASE, CONFIG_MAP, wired

Fate = Callable[[str, Told], FetchMessage | None]


def fetched(_: str, told: Told) -> FetchMessage:
    """A pod gets what it was told."""
    return FetchMessage(outcome="Fetched", digest=told.weights.partition("@")[2] or BASE[1])


@dataclass
class LivePods:
    """The agents of a namespace's serving pods."""

    place: Place
    port: int = field(default_factory=free_port)
    fate: Fate = fetched
    """What becomes of a pod (by its address) with what it is told; None: it has not got that far yet."""
    told: Told = field(default_factory=Told)
    addresses: list[str] = field(default_factory=list)
    history: list[Told] = field(default_factory=list)
    """What the ConfigMap has said, one after the other."""
    _answers: dict[str, str] = field(default_factory=dict)
    _runners: list[web.AppRunner] = field(default_factory=list)

    async def run(self) -> None:
        """Reads the ConfigMap, for ever, as often as it changes."""
        async with self.place.watch("configmaps", fieldSelector=f"metadata.name={CONFIG_MAP}") as changes:
            async for _, seen in changes:
                self.told = Told.of(seen.get("data") or {})
                if not self.history or self.history[-1] != self.told:
                    self.history.append(self.told)

    def becomes(self, pod: raw.Raw) -> raw.Raw:
        """For `Kubelet.serving`: a good pod, at an address of its own."""
        if pod["metadata"]["name"] not in self._answers:
            self._answers[pod["metadata"]["name"]] = ""
            self.addresses.append(f"127.71.0.{len(self.addresses) + 1}")
            self._starting = asyncio.ensure_future(self._listen(self.addresses[-1]))
        return serves_what_it_is_told(pod) | {"podIP": self.addresses[-1]}

    async def _listen(self, address: str) -> None:
        async def report(_: web.Request) -> web.Response:
            return web.Response(text=self.report(address).dump_json(), content_type="application/json")

        served = web.Application()
        served.router.add_get(REPORT_PATH, report)
        runner = web.AppRunner(served)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, address, self.port).start()

    def report(self, address: str) -> AdapterReport:
        told, said = self.told, self.fate(address, self.told)
        is_there = said is not None and said.outcome == "Fetched"
        if is_there:
            self._answers[address] = told.answering
        answers = self._answers.get(address, "")
        return AdapterReport(told=told, answers=answers, ready=is_there, base=BASE[0], fetch=said)

    async def serve(self) -> raw.Raw:
        """Creates the Deployment and waits for its two pods."""
        document = wired()
        del document["status"], document["metadata"]["generation"]
        await self.place.create("configmaps", {"metadata": {"name": CONFIG_MAP}})
        await self.place.create("deployments", document)
        return await self.place.until(
            "deployments", "support-llm", lambda d: d.get("status", {}).get("availableReplicas") == 2
        )

    async def update(self, name: str) -> raw.Raw:
        """Creates a SkillUpdate that brings an adapter."""
        lora = {"adaptation": {"type": "LoRA", "lora": {"publish": "Adapter"}}}
        return await self.place.update(name, method=lora, serving={"strategy": "Adapter", "port": self.port})

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def live_pods(place: Place) -> AsyncIterator[LivePods]:
    pods = LivePods(place)
    task = asyncio.create_task(pods.run())
    try:
        yield pods
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pods.close()
