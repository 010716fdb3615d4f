"""SIGTERM as a question that is asked between two pieces of work.

As process 1 of a container, python ignores the signal until somebody listens, so this comes before all else, and must
never import torch, which takes seconds.
"""

from __future__ import annotations

import os
import signal

from skill_trainer.errors import Preempted


class Stop:
    """Remembers that somebody asked the process to stop."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self, *, at_once: bool = False) -> None:
        """Takes over SIGTERM from now on; `at_once` ends the process then and there, which has nothing to save."""
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM) if at_once else self.request())

    def request(self) -> None:
        """Asks to stop; what runs at the moment is finished and saved first."""
        self.requested = True

    def __call__(self) -> bool:
        return self.requested

    def between(self, what: str) -> None:
        """Raises Preempted where a stop was requested, between two pieces of work that need no saving."""
        if self.requested:
            raise Preempted(f"stopped while {what}: start it again to go on")
