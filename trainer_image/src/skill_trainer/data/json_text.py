"""From JSON text to a value, more strictly than the standard library: nothing twice, nothing endless, nothing too deep.

Knows no file and no line.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from skill_trainer.data.record import BadRecordError, Problem

MAX_DEPTH = 64
"""Of lists and objects inside each other: far more than a tool's schema has, far less than ends a recursion."""

_OPENING = re.compile(r"[\[{]")


def decode_json(text: str, field: str = "(line)") -> Any:
    """Returns the JSON value in a text; raises BadRecordError, which calls it `field`, where it is none."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        reason = f"is not JSON ({error.msg} at column {error.colno}): one whole object a line"
        raise BadRecordError(Problem(field, reason)) from error
    except BadRecordError:
        raise
    except ValueError as error:  # Source: Python, sys.set_int_max_str_digits
        raise BadRecordError(Problem(field, "has a whole number that is too long to be read: shorten it")) from error
    except RecursionError as error:
        raise _too_deep(field) from error
    if len(_OPENING.findall(text)) > MAX_DEPTH and not _within(value, MAX_DEPTH):
        raise _too_deep(field)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise BadRecordError(Problem(repeated, "stands twice in the record: keep one"))
    return found


def _too_deep(field: str) -> BadRecordError:
    return BadRecordError(Problem(field, f"is nested too deeply to be a record (more than {MAX_DEPTH} levels)"))


def _within(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_within(each, levels - 1) for each in inner)
