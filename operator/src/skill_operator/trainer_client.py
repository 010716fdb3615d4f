"""Live progress from trainer pods: a bounded number of short requests, whose failure is never a fault of the update."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import aiohttp

from skill_contract.model import ContractError
from skill_contract.progress import Progress
from skill_contract.step import PROGRESS_PORT
from skill_operator.session import Session

TIMEOUT_SECONDS = 3.0
MAX_CONNECTIONS = 32
MAX_BYTES = 64 * 1024
_DATE_SECONDS = 2.0
"""How exact the Date of an answer is: it has whole seconds."""


class TrainerClient(Session):
    """Asks trainer pods at GET /progress."""

    def __init__(self, port: int = PROGRESS_PORT) -> None:
        super().__init__(seconds=TIMEOUT_SECONDS, connections=MAX_CONNECTIONS)
        self._port = port

    async def progress(self, ip: str) -> Progress | None:
        """Returns what the trainer at a pod's address says; None where it says nothing that can be read."""
        host = f"[{ip}]" if ":" in ip else ip
        try:
            async with self._session.get(f"http://{host}:{self._port}/progress", allow_redirects=False) as response:
                if response.status != 200:
                    return None
                said = Progress.parse_json(await _bounded(response.content))
                return by_our_clock(said, response.headers.get("Date", ""), time.time())
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError):
            return None


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    text = bytearray()
    while len(text) < MAX_BYTES and (chunk := await content.read(MAX_BYTES - len(text))):
        text += chunk
    return bytes(text)


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
