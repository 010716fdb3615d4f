"""Durations and ages in words. Pure."""

from __future__ import annotations

from skill_operator.api import to_unix

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """Returns a duration in its two largest units, the second only where it says something: 3 h 20 min, 45 s."""
    left = max(int(seconds), 0)
    for index, (size, unit) in enumerate(_UNITS):
        if left >= size:
            words = f"{left // size} {unit}"
            if index + 1 < len(_UNITS) and (left // size) < 10 and unit != "min":
                smaller, name = _UNITS[index + 1]
                rest = left % size // smaller
                words += f" {rest} {name}" if rest else ""
            return words
    return "0 s"


def age(time: str | None, now: float) -> str:
    """Returns how long ago an RFC 3339 time is; empty for none."""
    then = to_unix(time)
    return "" if then is None else duration(now - then)
