"""Everything that the API server told about the cells: the newest state of each object, and all that there was before.

It watches as any client does and goes through the API server's deaths as such; it changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from tests.operator.api.place import COLLECTIONS, Raw


@dataclass(frozen=True)
class Entry:
    """One thing that happened in a namespace."""

    kind: str
    event: str
    """ADDED, MODIFIED or DELETED; of what is `played`, what was said."""
    seen: Raw


class Ledger:
    """The history of the namespaces that begin with a prefix."""

    def __init__(self, client: httpx.AsyncClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._now: dict[str, dict[str, dict[str, Raw]]] = {kind: defaultdict(dict) for kind in COLLECTIONS}
        self._history: dict[str, list[Entry]] = defaultdict(list)
        self._pulses: dict[str, asyncio.Event] = {}
        self.listeners: list[Callable[[Entry], None]] = []
        """Are told of every entry."""

    # -- what there is ----------------------------------------------------------------------------------------------

    def all(self, kind: str, namespace: str) -> list[Raw]:
        return list(self._now[kind][namespace].values())

    def get(self, kind: str, namespace: str, name: str) -> Raw | None:
        return self._now[kind][namespace].get(name)

    def history(self, namespace: str, kind: str = "") -> list[Entry]:
        return [entry for entry in self._history[namespace] if kind in {"", entry.kind}]

    async def until(self, namespace: str, reached: Callable[[], object], what: str, seconds: float) -> None:
        """Waits until `reached` is true, asked anew whenever something happens in the namespace."""
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    await self._pulses.setdefault(namespace, asyncio.Event()).wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within {seconds:.0f} s") from None

    # -- how it comes to be known -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watches, for ever."""
        async with asyncio.TaskGroup() as group:
            for kind in COLLECTIONS:
                group.create_task(self._follow(kind))

    def note(self, kind: str, event: str, seen: Raw) -> None:
        """Writes an entry down."""
        metadata = seen["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        if not namespace.startswith(self._prefix):
            return
        metadata.pop("managedFields", None)
        if kind in self._now:
            there = self._now[kind][namespace]
            if event == "DELETED":
                there.pop(name, None)
            else:
                there[name] = seen
        entry = Entry(kind, event, seen)
        self._history[namespace].append(entry)
        for listener in self.listeners:
            listener(entry)
        if namespace in self._pulses:
            self._pulses.pop(namespace).set()

    async def _follow(self, kind: str) -> None:
        version = ""
        while True:
            with contextlib.suppress(httpx.TransportError, httpx.HTTPStatusError):
                version = version or await self._list(kind)
                version = await self._watch(kind, version)
                continue
            await asyncio.sleep(0.2)  # the API server is away: there is no event for its return

    async def _list(self, kind: str) -> str:
        page = (await self._client.get(f"{COLLECTIONS[kind]}/{kind}")).raise_for_status().json()
        there = {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in page["items"]}
        for namespace, known in self._now[kind].items():
            for name, seen in list(known.items()):
                same = there.get((namespace, name))
                if same is None or same["metadata"]["uid"] != seen["metadata"]["uid"]:
                    self.note(kind, "DELETED", seen)
        for (namespace, name), item in there.items():
            known_as = self.get(kind, namespace, name)
            if known_as is None:
                self.note(kind, "ADDED", item)
            elif known_as["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self.note(kind, "MODIFIED", item)
        return str(page["metadata"]["resourceVersion"])

    async def _watch(self, kind: str, version: str) -> str:
        """Follows a watch to its end; returns from where to go on, or nothing where it has to be listed anew."""
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        with contextlib.suppress(httpx.TransportError):
            async with self._client.stream(
                "GET", f"{COLLECTIONS[kind]}/{kind}", params=query, timeout=httpx.Timeout(10, read=None)
            ) as response:
                if response.status_code != 200:
                    return ""
                async for line in response.aiter_lines():
                    told = json.loads(line)
                    if told["type"] == "ERROR":
                        return ""
                    version = told["object"]["metadata"]["resourceVersion"]
                    if told["type"] != "BOOKMARK":
                        self.note(kind, told["type"], told["object"])
        return version
