"""What a cluster has beyond Kubernetes itself: engines that train, kinds of serving targets. Found, not configured.

An engine is asked for only where somebody wants one. Whatever was seen once is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from skill_operator.kube import JOBSETS, Kube, kind_at
from skill_operator.targets.kind import Kind
from skill_operator.targets.read import KINDS


class Engines:
    """What has been found so far."""

    def __init__(self) -> None:
        self.appeared = asyncio.Event()
        """Set where something was found that was not there when the watches began."""
        self._jobset = False
        self._targets: set[str] = set()

    async def begin(self, api: Kube) -> bool:
        """Returns whether JobSets are there to be watched, as the watches begin."""
        self._jobset = await api.is_served(JOBSETS)
        return self._jobset

    async def serve_jobset(self, api: Kube) -> bool:
        """Returns whether the API server knows JobSets."""
        if not self._jobset and await api.is_served(JOBSETS):
            self._jobset = True
            self.appeared.set()
        return self._jobset

    async def begin_targets(self, api: Kube, namespaces: Sequence[str | None]) -> tuple[Kind, ...]:
        """Returns the kinds of serving targets that are there to be watched, as the watches begin."""
        found = tuple([kind for kind in KINDS if await _may_watch(api, kind, namespaces)])
        self._targets = {kind.name for kind in found}
        return found

    async def found(self, api: Kube, kind: Kind, namespaces: Sequence[str | None]) -> None:
        """Takes a kind of which a target was read just now: from now on its objects are watched."""
        if kind.name not in self._targets and await _may_watch(api, kind, namespaces):
            self._targets.add(kind.name)
            self.appeared.set()


async def _may_watch(api: Kube, kind: Kind, namespaces: Sequence[str | None]) -> bool:
    if not kind.switch:  # always there, and always allowed
        return True
    place = kind_at(kind.api_version, kind.plural)
    return all([await api.may_list(place, namespace) for namespace in namespaces])
