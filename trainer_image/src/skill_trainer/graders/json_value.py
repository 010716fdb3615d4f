"""`json`: the answer is JSON with the expected value: order of keys and spacing do not matter, types do.

A fenced code block is taken from the text around it, as is the first object or array.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from skill_trainer.graders.grader import Grader

_STARTS = 16
"""Brackets at which an object or array is looked for."""
_FENCE = re.compile(r"```[\w-]*\s*\n(.*?)```", re.DOTALL)


class NotJsonError(ValueError):
    """A text without a JSON value."""


def parse_json(text: str) -> Any:
    """Returns the JSON value of a text; raises NotJsonError where it is none (NaN and Infinity are none either)."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(str(error)) from error


def _refuse(constant: str) -> None:
    raise NotJsonError(f"{constant} is not JSON")


def json_in(text: str) -> Any:
    """Returns the JSON value in an answer: the whole text, else the last fenced block, else the first object or array.

    Raises:
        NotJsonError: where none of them is JSON.
    """
    fenced = _FENCE.findall(text)
    for candidate in (text, *fenced[-1:]):
        try:
            return parse_json(candidate)
        except NotJsonError:
            continue
    return _first_object(text)


def _first_object(text: str) -> Any:
    """Brackets may be prose ("see [1]", "{sic}"), so the first that is JSON counts, out of a few."""
    decoder, reason = json.JSONDecoder(parse_constant=_refuse), "no object or array"
    for start in islice(re.finditer(r"[{\[]", text), _STARTS):
        try:
            value, _end = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError) as error:
            reason = str(error)
        else:
            return value
    raise NotJsonError(reason)


def same_value(one: Any, other: Any) -> bool:
    """Returns whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    return bool(one == other)


def _problem(expected: str) -> str:
    try:
        parse_json(expected)
    except NotJsonError as error:
        return f"is not JSON ({error}): write the expected value as JSON, a text with its quotes"
    return ""


def _right(text: str, expected: str) -> bool:
    try:
        return same_value(json_in(text), parse_json(expected))
    except (NotJsonError, RecursionError):
        return False


GRADER = Grader("json", _right, _problem)
