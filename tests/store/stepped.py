"""Actors on one repository, whose turns are dealt out: each operation on the store is a step, one at a time.

The store is the real one, in a folder; only the order of its callers is decided here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from skill_store.folder import FolderStore

STEPS = ("get", "put", "upload", "list", "delete")
PATIENCE_SECONDS = 60


class Actor(threading.Thread):
    """Does something in a thread of its own, which waits before each operation on a store until it is let go on."""

    def __init__(self, name: str, act: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._act = act
        self._may_go, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.is_over = False
        self.result: object = None

    def run(self) -> None:
        self.wait_for_turn()
        try:
            self.result = self._act()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.result = error
        self.is_over = True
        self._has_stopped.release()

    def wait_for_turn(self) -> None:
        self._has_stopped.release()
        assert self._may_go.acquire(timeout=PATIENCE_SECONDS)

    def await_stop(self) -> None:
        assert self._has_stopped.acquire(timeout=PATIENCE_SECONDS), f"{self.name} neither ends nor asks the store"

    def go_on(self) -> None:
        """Returns when the actor is before its next operation, or at its end."""
        self._may_go.release()
        self.await_stop()


def run_in_turns(actors: Sequence[Actor], turns: Sequence[int], between: Callable[[], None]) -> None:
    """Lets all actors come to their end: by the turns given, then in a ring. `between` is called after each step."""
    with _steps():
        for actor in actors:
            actor.start()
            actor.await_stop()
        dealt = iter(turns)
        ring = 0
        while left := [actor for actor in actors if not actor.is_over]:
            ring += 1
            left[next(dealt, ring) % len(left)].go_on()
            between()


@contextmanager
def _steps() -> Iterator[None]:
    """Makes every operation of an actor's thread a step; those of all others, the test's among them, are not held."""
    with patch.multiple(FolderStore, **{name: _step(getattr(FolderStore, name)) for name in STEPS}):
        yield


def _step(operation: Callable[..., object]) -> Callable[..., object]:
    def stepped(*arguments: object, **more: object) -> object:
        actor = threading.current_thread()
        if isinstance(actor, Actor):
            actor.wait_for_turn()
        return operation(*arguments, **more)

    return stepped
