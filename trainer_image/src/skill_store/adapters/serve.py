"""The sidecar's process: the agent and the port, until the kubelet ends it after the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from skill_store.adapters.agent import Agent, told_in
from skill_store.adapters.bring import Bring
from skill_store.adapters.engine import Engine
from skill_store.adapters.proxy import application
from skill_store.adapters.sglang import SGLang
from skill_store.adapters.vllm import VLLM

_ENGINES: dict[str, Callable[[aiohttp.ClientSession, str], Engine]] = {"vllm": VLLM, "sglang": SGLang}


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the sidecar."""

    engine: str
    """`vllm` or `sglang`."""
    engine_url: str
    port: int
    model: str
    told: Path
    base: Path
    folder: Path


def serve(settings: Settings) -> None:
    """Runs for ever."""
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    # No proxy of the environment stands between two containers of a pod; what the engine encodes stays as it is.
    async with aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)) as session:
        engine = _ENGINES[settings.engine](session, settings.engine_url)
        agent = Agent(engine, told_in(settings.told), Bring(settings.base, settings.folder), settings.model)
        runner = web.AppRunner(
            application(agent, session, settings.engine_url), access_log=None, handler_cancellation=True
        )
        await runner.setup()
        await web.TCPSite(runner, port=settings.port).start()
        await agent.run()
