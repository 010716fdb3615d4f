"""What the agent has to know of an engine, and nothing more: one file for each engine stands behind this protocol.

Adapters have the names of their versions. An engine's own ways to give a name other weights are not used: what a name
stands for is the agent's business.
"""
# ruff: noqa: N818 - the class carries a reason's name, like the store's

from __future__ import annotations

import json
from typing import Any, Protocol

import aiohttp

from skill_store.errors import StoreError

_SECONDS = aiohttp.ClientTimeout(total=300, connect=5)
"""Loading an adapter waits for a turn of the engine's, and for its disk."""
MAX_BYTES = 4 << 20
"""Of an answer: a list of some thousand models."""


class EngineAway(StoreError):
    """The engine cannot be reached: it starts, or has ended."""

    reason = "EngineUnreachable"
    retriable = True


class Engine(Protocol):
    """An engine that holds adapters beside its model."""

    async def loaded(self) -> frozenset[str]:
        """Returns the names of all adapters that it holds; raises EngineAway."""
        ...

    async def load(self, name: str, folder: str) -> None:
        """Has it hold the adapter in a folder (in PEFT's format, as the engine sees it) under a name of its own.

        Raises:
            EngineAway: nobody answers.
            AdapterRefused: it does not want to.
        """
        ...

    async def unload(self, name: str) -> None:
        """Has it forget an adapter; raises as `load` does."""
        ...

    def model(self, base: str, name: str) -> str:
        """Returns what requests have to name for an adapter of the model that is served as `base`."""
        ...


async def ask(session: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> tuple[int, Any]:
    """Returns status and content of an answer: parsed where it is JSON, else its text; raises EngineAway."""
    try:
        plain = {"Accept-Encoding": "identity"}
        async with session.request(method, url, json=body, headers=plain, timeout=_SECONDS) as response:
            text = bytearray()
            async for chunk in response.content.iter_any():
                text += chunk
                if len(text) > MAX_BYTES:
                    raise EngineAway(f"what answers at {url} says more than {MAX_BYTES >> 20} MiB: is it the engine?")
            return response.status, content(bytes(text))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise EngineAway(f"the engine does not answer at {url}: {error or type(error).__name__}") from error


def content(text: bytes) -> Any:
    """Returns the JSON value of an answer, or the text of one that is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode(errors="replace")


async def listed(session: aiohttp.ClientSession, url: str) -> frozenset[str]:
    """Returns the adapters in an engine's list of models; raises EngineAway."""
    return adapters_in(*await ask(session, "GET", f"{url}/v1/models"))


def adapters_in(status: int, models: Any) -> frozenset[str]:
    """Returns the adapters in an answer to /v1/models: those that have a parent; raises EngineAway."""
    try:
        if status == 200:
            return frozenset(str(card["id"]) for card in models["data"] or () if card.get("parent"))
    except (AttributeError, LookupError, TypeError):
        pass
    raise EngineAway(f"the engine lists no models: HTTP {status} {shown(models)}")


def shown(answer: Any) -> str:
    """Returns the beginning of an answer, for a sentence."""
    return str(answer)[:200]
