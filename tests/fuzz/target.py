"""What is fuzzed: a reader of foreign bytes, the documents that it usually gets, and what counts as a clean error.

Knows no fuzzer: `bench` counts, `worker` feeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

LONGEST_MESSAGE = 16_000
"""Characters: whatever came in, what is said of it can be read."""


@dataclass(frozen=True)
class Target:
    """One reader."""

    name: str
    what: str
    """What is read, and who could have written it."""
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes], str]
    """Reads an input; returns the clean error's message, '' where there was none. Whatever it raises is a defect."""
    share: float = 1.0
    """Of the inputs that an ordinary target gets: slow ones get fewer."""


def said(error: Exception, place: str = "") -> str:
    """Returns the message of a clean error; a message that says nothing, too much or no place is a defect."""
    message = str(error)
    assert message.strip(), f"{type(error).__name__} says nothing"
    assert len(message) <= LONGEST_MESSAGE, f"{type(error).__name__} says {len(message)} characters"
    assert place in message, f"{message!r:.200} does not name {place}"
    return f"{type(error).__name__}: {message}"
