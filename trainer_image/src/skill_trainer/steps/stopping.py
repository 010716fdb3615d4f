"""SIGTERM as a question that is asked between two pieces of work."""

from __future__ import annotations

import signal

from skill_trainer.errors import Preempted


class Stop:
    """Remembers that somebody asked the process to stop."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Takes over SIGTERM from now on."""
        signal.signal(signal.SIGTERM, lambda *_: self.request())

    def request(self) -> None:
        """Asks to stop; what runs at the moment is finished and saved first."""
        self.requested = True

    def __call__(self) -> bool:
        return self.requested

    def between(self, what: str) -> None:
        """Raises Preempted where a stop was requested, between two pieces of work that need no saving."""
        if self.requested:
            raise Preempted(f"stopped while {what}: start it again to go on")
