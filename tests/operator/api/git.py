"""A Git controller (Argo CD's or Flux's own code) that applies what is in Git again and again, and what it meets."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from tests.gitops.programs import Program
from tests.operator.api.place import PATIENCE_S, Place, Raw

TRACKING = {"annotations": {"argocd.argoproj.io/tracking-id": "skills:tracked"}, "labels": {"in-git": "yes"}}
"""What Git controllers put on what they apply; Flux has labels of its own beside."""


class Git:
    """One folder in Git, and the controller that applies it and prunes what is not in it any more."""

    def __init__(self, program: Program, place: Place, *, prunes: str) -> None:
        """Begins with an empty folder.

        Args:
            prunes: the propagation policy of what the controller deletes.
        """
        self._program = program
        self._place = place
        self.prunes = prunes
        self._files: dict[str, Raw] = {}
        self._removed: list[Raw] = []
        self._commits = 0
        self.rounds = 0
        """How often all that is in Git was compared and applied."""
        self.met: list[str] = []
        """Errors, and drift that neither a commit explains nor a controller at work between two looks."""
        self._looked = asyncio.Condition()

    def commit(self, *documents: Raw) -> None:
        """Adds files, or writes them anew."""
        for document in documents:
            tracked = document["metadata"] | {"namespace": self._place.namespace} | TRACKING
            self._files[f"{document['kind']} {tracked['name']}"] = copy.deepcopy(document) | {"metadata": tracked}
        self._commits += 1

    def remove(self, document: Raw) -> None:
        """Removes a file."""
        self._removed.append(self._files.pop(f"{document['kind']} {document['metadata']['name']}"))

    async def run(self) -> None:
        """Applies, for ever; between two rounds it takes no rest."""
        applied = 0
        while True:
            files, commit = list(self._files.items()), self._commits
            removed, self._removed = self._removed, []
            before = [await self._version(document) for _, document in files]
            answers = await asyncio.to_thread(self._program.ask, [document for _, document in files])
            for (name, document), version, answer in zip(files, before, answers, strict=True):
                is_still = commit == applied and version == await self._version(document)
                drift = answer["drift"] if is_still else []
                self.met += [f"{name}: {what}" for what in (*drift, answer["error"]) if what]
            for document in removed:
                await self._place.delete(_kind(document), document["metadata"]["name"], policy=self.prunes)
            applied = commit
            async with self._looked:
                self.rounds += 1
                self._looked.notify_all()
            await asyncio.sleep(0.05)

    async def _version(self, document: Raw) -> str:
        answer = await self._place.client.get(self._place.path(_kind(document), document["metadata"]["name"]))
        return str(answer.json()["metadata"].get("resourceVersion", ""))

    async def applied(self, times: int = 1) -> None:
        """Waits until everything that is in Git now has been applied some times, from the first file to the last."""
        enough = self.rounds + 1 + times  # the round that runs now may have begun before
        async with asyncio.timeout(PATIENCE_S), self._looked:
            await self._looked.wait_for(lambda: self.rounds >= enough)


def _kind(document: Raw) -> str:
    return f"{document['kind'].lower()}s"


async def at_rest_under(git: Git, place: Place, *names: tuple[str, str]) -> None:
    """Waits until Git applies objects twice and neither it nor anybody else changes the least thing about them."""

    async def versions() -> list[str]:
        return [(await place.get(kind, name))["metadata"]["resourceVersion"] for kind, name in names]

    for _ in range(15):
        before = await versions()
        await git.applied(2)
        if await versions() == before:
            return
    raise AssertionError(f"{names} change without end while Git applies them; Git says: {git.met}")


class History:
    """The values that something about an object has had, one after the other."""

    def __init__(self, place: Place, kind: str, value: Callable[[Raw], Any]) -> None:
        self._place, self._kind, self._value = place, kind, value
        self.values: list[Any] = []

    async def run(self) -> None:
        async with self._place.watch(self._kind) as changes:
            async for _, seen in changes:
                if not self.values or self.values[-1] != self._value(seen):
                    self.values.append(self._value(seen))
