"""Checkpoints go to the store beside the work that follows: one at a time, and none is lost unnoticed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from skill_trainer.parallel import Crew

_log = logging.getLogger(__name__)


class Uploads:
    """Uploads of each machine's first process; a context manager that ends when the last one has."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def start(self, upload: Callable[[], None]) -> None:
        """Begins an upload; the one before must have been waited for."""
        assert self._last is None, "two uploads at a time would share a folder"
        if self._crew.leads:
            self._last = self._pool.submit(upload)

    def wait(self) -> None:
        """Returns when nothing is on its way any more; called in all processes alike.

        Raises:
            StoreError: what the upload has met.
        """
        self._crew.each(self._end)

    def _end(self) -> None:
        last, self._last = self._last, None
        if last:
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
            else:  # of this process alone, maybe: nobody else may be waited for, and its own fault is the one to tell
                self._end_quietly()
        finally:
            self._pool.shutdown()

    def _end_quietly(self) -> None:
        try:
            self._end()
        except Exception:  # noqa: BLE001 - another fault is on its way already
            _log.exception("the last checkpoint has not come to the store")
