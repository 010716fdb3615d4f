"""What the agent has to know of an engine, and nothing more: one file for each engine stands behind this protocol.

Adapters have the names of their versions. An engine's own ways to give a name other weights are not used: what a name
stands for is the agent's business.
"""
# ruff: noqa: N818 - the class carries a reason's name, like the store's

from __future__ import annotations

from typing import Any, Protocol

import aiohttp

from skill_store.errors import StoreError

_SECONDS = aiohttp.ClientTimeout(total=300, connect=5)
"""Loading an adapter waits for a turn of the engine's, and for its disk."""


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
            text = await response.text()
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else text
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise EngineAway(f"the engine does not answer at {url}: {error or type(error).__name__}") from error


async def listed(session: aiohttp.ClientSession, url: str) -> frozenset[str]:
    """Returns the adapters in an engine's list of models: those that have a parent; raises EngineAway."""
    status, content = await ask(session, "GET", f"{url}/v1/models")
    if status != 200 or not isinstance(content, dict):
        raise EngineAway(f"the engine lists no models: HTTP {status} {str(content)[:200]}")
    return frozenset(str(card["id"]) for card in content.get("data") or () if card.get("parent"))
