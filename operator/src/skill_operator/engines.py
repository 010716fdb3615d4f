"""Which engines a cluster has beyond Kubernetes' own Jobs: found, not configured.

Asked only where somebody wants one, and remembered once it was seen.
"""

from __future__ import annotations

import asyncio

from skill_operator.kube import JOBSETS, Kube


class Engines:
    """What has been found so far."""

    def __init__(self) -> None:
        self.appeared = asyncio.Event()
        """Set where an engine was found that was not there when the watches began."""
        self._jobset = False

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
