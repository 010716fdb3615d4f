"""Live progress from trainer pods: a bounded number of short requests, whose failure is never a fault of the update."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from skill_contract.model import ContractError
from skill_contract.progress import Progress
from skill_contract.step import PROGRESS_PORT
from skill_operator.session import PodSession

_DATE_SECONDS = 2.0
"""How exact the Date of an answer is: it has whole seconds."""


class TrainerClient(PodSession):
    """Asks trainer pods at GET /progress."""

    def __init__(self, port: int = PROGRESS_PORT) -> None:
        super().__init__()
        self._port = port

    async def progress(self, ip: str) -> Progress | None:
        """Returns what the trainer at a pod's address says; None where it says nothing that can be read."""
        answer = await self._ask(ip, self._port, "/progress")
        if answer is None:
            return None
        text, date = answer
        try:
            return by_our_clock(Progress.parse_json(text), date, time.time())
        except ContractError:
            return None


def by_our_clock(progress: Progress, date: str, now: float) -> Progress:
    """Returns the progress with its heartbeat by our clock: a node's may be wrong by more than a heartbeat's timeout.

    Source: RFC 9110, section 6.6.1, Date.

    Args:
        date: of the answer, by the trainer's clock.
        now: Unix seconds.
    """
    try:
        difference = now - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return progress
    if abs(difference) < _DATE_SECONDS:
        return progress
    return progress.model_copy(update={"heartbeat": min(max(progress.heartbeat + difference, 0.0), now)})
