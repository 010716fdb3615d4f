"""`number`: the last number of the answer equals the expected one within a tolerance.

The expected answer is a number, where wanted with a tolerance: `42`, `1,250.5`, `3.14 ± 0.01` (or `3.14 +- 0.01`).
Thousands may be separated by commas, apostrophes, or the spaces that typography has for it; an ordinary space separates
numbers. The decimal sign is a dot. A percent sign is a unit, not a factor: 50 % is 50.
"""

from __future__ import annotations

import math
import re

from skill_trainer.graders.grader import Grader

_RELATIVE_TOLERANCE = 1e-6
_SEPARATORS = ",'’\u00a0\u2009\u202f"
_NUMBER = re.compile(
    rf"(?<![\w.])[-+−]?(?:\d{{1,3}}(?:[{_SEPARATORS}]\d{{3}})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{{1,3}})?"
    r"|(?<![\w.])[-+−]?\.\d+"
)
_TOLERANCE = re.compile(r"\s*(?:±|\+-|\+/-)\s*")
_PERCENT = re.compile(r"\s*(?:%|percent|per cent)$", re.IGNORECASE)


def last_number(text: str) -> float | None:
    """Returns the last number that is written in `text` (thousands commas allowed), or None where there is none."""
    numbers = _NUMBER.findall(text)
    return _value(numbers[-1]) if numbers else None


def _value(digits: str) -> float:
    return float(re.sub(f"[{_SEPARATORS}]", "", digits).replace("−", "-"))


def _expectation(expected: str) -> tuple[float, float] | None:
    """Returns the wanted value and the allowed absolute difference."""
    parts = _TOLERANCE.split(_PERCENT.sub("", expected.strip()))
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    value = _value(parts[0])
    if not math.isfinite(value):
        return None
    return value, abs(_value(parts[1])) if len(parts) == 2 else _RELATIVE_TOLERANCE * abs(value)


def _problem(expected: str) -> str:
    if _expectation(expected):
        return ""
    return f"is not a number ({expected!r:.40}): write 42, 1250.5 or 3.14 ± 0.01"


def _right(text: str, expected: str) -> bool:
    expectation, found = _expectation(expected), last_number(text)
    if expectation is None or found is None:
        return False
    value, tolerance = expectation
    return math.isclose(found, value, rel_tol=1e-12, abs_tol=tolerance)


GRADER = Grader("number", _right, _problem)
