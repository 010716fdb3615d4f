"""The one retry of this package: only for faults that pass by themselves, and never for bytes that are wrong."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from skill_store.errors import StoreError

ATTEMPTS = 5
FIRST_PAUSE_SECONDS = 0.5

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def retried(action: Callable[[], _T]) -> _T:
    """Returns the action's result; calls it again after retriable StoreErrors, with doubling pauses (8 s in all)."""
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except StoreError as error:
            if not error.retriable:
                raise
            pause = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            _log.warning("attempt %d of %d failed, next in %.1f s: %s", attempt, ATTEMPTS, pause, error.message)
            time.sleep(pause)
    return action()
