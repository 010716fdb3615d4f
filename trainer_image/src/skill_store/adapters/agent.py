"""The agent beside an engine: it looks at what its pod was told, and brings the engine there, again and again.

It keeps no state that it could not find out anew: what it was told is a mounted ConfigMap, what the engine holds the
engine says, what lies on the disk is hashed. So its own restart and the engine's are the same as any other look.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skill_contract.adapters import HELD_KEY, PREVIOUS_KEY, WEIGHTS_KEY, AdapterReport, Told, model_name
from skill_contract.manifest import VERSION_PATTERN, FetchMessage
from skill_store.adapters.bring import Bring
from skill_store.adapters.engine import Engine, EngineAway
from skill_store.errors import BaseMismatch, StoreError, nothing_else
from skill_store.fetch import failure

LOOK_SECONDS = 1.0
RETRY_SECONDS = 10.0
"""Between two attempts at a version that could not be brought."""
_OURS = re.compile(VERSION_PATTERN)
"""Names of adapters that an agent has loaded; others are the user's own and stay."""

_log = logging.getLogger(__name__)


def told_in(folder: Path) -> Callable[[], Told]:
    """Returns what reads a mounted ConfigMap, all of its keys of one moment; a folder that is not there says nothing.

    Source: kubelet, AtomicWriter: the files are links through `..data`, which is exchanged as a whole.
    """

    def read() -> Told:
        while True:
            whole = (folder / "..data").resolve() if (folder / "..data").exists() else folder
            files = (whole / key for key in (WEIGHTS_KEY, PREVIOUS_KEY, HELD_KEY))
            with suppress(FileNotFoundError):  # exchanged in the middle
                return Told.of({file.name: file.read_text() for file in files if file.exists()})

    return read


class Agent:
    """Of one engine."""

    def __init__(self, engine: Engine, told: Callable[[], Told], bring: Bring, model: str) -> None:
        self.model_served = model
        """The name under which people ask, and under which the engine serves its own weights."""
        self._engine, self._read, self._bring = engine, told, bring
        self._told = Told()
        self._own = self._look_at_own()
        """About the pod's own weights, of the last look: requests ask for it, and must not wait for a disk."""
        self._loaded: frozenset[str] = frozenset()
        self._answers: str | None = None
        """None: it is not known yet what is to answer."""
        self._is_up = False
        self._brought: dict[str, FetchMessage] = {}
        self._retry: dict[str, float] = {}
        self._asked: Counter[str] = Counter()

    async def run(self) -> None:
        """Looks for ever: whatever goes wrong in a look, requests go on as they are."""
        while True:
            try:
                with nothing_else():
                    await self.look()
            except StoreError as error:
                _log.warning("%s: the next look tries again", error.message)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Brings the engine one step nearer to what the pod was told; what hinders it stands in the report."""
        self._told, self._own = self._read(), self._look_at_own()
        try:
            self._loaded, self._is_up = await self._engine.loaded(), True
            await self._let_go()
            for weights in sorted({self._told.weights, self._told.previous} - {""}):
                await self._have(weights)
        except EngineAway as away:
            if self._is_up:
                _log.warning("%s", away.message)
            self._loaded, self._is_up = frozenset(), False
        self._switch()

    async def _let_go(self) -> None:
        """What nobody needs any more goes first: an engine has few places."""
        needed = {model_name(weights) for weights in (self._told.weights, self._told.previous, self._answers or "")}
        for name in sorted(self._loaded - needed):
            if not _OURS.fullmatch(name) or self._asked[name]:
                continue
            try:
                await self._engine.unload(name)
            except EngineAway:
                raise
            except StoreError as error:
                _log.warning("%s", error.message)
                continue
            _log.info("unloaded %s", name)
            self._loaded -= {name}
            self._brought = {weights: said for weights, said in self._brought.items() if model_name(weights) != name}
            await asyncio.to_thread(shutil.rmtree, self._bring.place(name), ignore_errors=True)

    async def _have(self, weights: str) -> None:
        name, said = model_name(weights), self._brought.get(weights)
        if said and said.outcome == "Fetched" and self._is_there(weights):
            return
        if time.monotonic() < self._retry.get(weights, 0):
            return
        self._retry[weights] = time.monotonic() + RETRY_SECONDS
        try:
            with nothing_else():
                fetched = await asyncio.to_thread(self._fetch, weights)
                if name not in self._loaded and not self._is_own(weights):
                    await self._engine.load(name, str(self._bring.place(name)))
                    self._loaded |= {name}
        except EngineAway:
            raise
        except StoreError as error:
            _log.warning("%s: %s", name, error.message)
            self._brought[weights] = failure(error, weights)
            return
        _log.info("loaded %s: %.1f MB", name, fetched.size_bytes / 1e6)
        self._brought[weights] = fetched

    def _fetch(self, weights: str) -> FetchMessage:
        return self._own if self._is_own(weights) else self._bring.adapter(weights)

    def _look_at_own(self) -> FetchMessage:
        """Returns the message about the pod's own weights, as its fetch container left them."""
        try:
            own = self._bring.base_version()
        except BaseMismatch as error:
            return failure(error, "")
        return FetchMessage(outcome="Fetched", version=own.version, digest=own.digest)

    def _is_own(self, weights: str) -> bool:
        """A pod that has fetched the head after a promotion has the version itself, and needs no adapter for it."""
        return self._own.outcome == "Fetched" and self._own.digest == weights.rpartition("@")[2]

    def _is_there(self, weights: str) -> bool:
        return model_name(weights) in self._loaded or self._is_own(weights)

    def _switch(self) -> None:
        """Requests that come from now on get the other version; those that are being answered keep theirs."""
        wanted = self._told.answering
        if wanted == self._answers or not self._is_up or not self._may_answer(wanted):
            return
        _log.info("%s answers as %s", self.model_served, model_name(wanted) or "the pod's own weights make it")
        self._answers = wanted

    def _may_answer(self, weights: str) -> bool:
        if not weights:
            return True
        said = self._brought.get(weights)
        return said is not None and said.outcome == "Fetched" and self._is_there(weights)

    @property
    def is_ready(self) -> bool:
        """Whether requests may come: the engine is up and holds what is to answer."""
        return self._is_up and self._answers is not None and self._may_answer(self._answers)

    def report(self) -> AdapterReport:
        """Returns how far it is."""
        told = self._told
        is_done = self.is_ready and self._answers == told.answering and self._may_answer(told.weights)
        return AdapterReport(
            told=told,
            answers=self._answers or "",
            ready=is_done,
            base=self._own.version,
            fetch=self._said(told.weights),
        )

    def _said(self, weights: str) -> FetchMessage | None:
        if not weights:
            return self._own
        said = self._brought.get(weights)
        is_gone = said is not None and said.outcome == "Fetched" and not self._is_there(weights)
        return None if is_gone else said

    @contextmanager
    def route(self, model: str) -> Iterator[str | None]:
        """Yields what the engine calls the model that a request names; None where nothing may answer it now.

        While the context lasts, an adapter behind it is not unloaded.
        """
        is_served = model in {"", self.model_served}
        if is_served and not self.is_ready:
            yield None
            return
        name = model_name(self._answers or "") if is_served else model
        if name not in self._loaded:  # the pod's own weights, or a name that the engine may know
            yield model
            return
        self._asked[name] += 1
        try:
            yield self._engine.model(self.model_served, name)
        finally:
            self._asked[name] -= 1
