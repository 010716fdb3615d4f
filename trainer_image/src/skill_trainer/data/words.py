"""What pydantic finds wrong with a record, in plain words with the way out. Knows no schema."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails

SURROGATE = "has half of a surrogate pair (\\ud800 to \\udfff): write the whole character"

_WANTED = {"string_type": "text in quotes", "list_type": "a list", "model_type": "an object", "dict_type": "an object"}
_OTHER_NAMES = {
    "instruction": "prompt", "question": "prompt", "input": "prompt",
    "output": "completion", "response": "completion", "conversations": "messages", "conversation": "messages",
    "value": "content", "text": "content", "from": "role",
}  # fmt: skip
"""What other formats call our fields."""


def reason_of(error: ErrorDetails, known: Sequence[str]) -> str:
    """Returns the reason of one error; `known` are the names of the fields that may stand where it was found."""
    value = error["input"]
    match error["type"]:
        case "extra_forbidden":
            reason = unknown_field(str(error["loc"][-1]), known)
        case "missing" if len(error["loc"]) > 1:
            reason = "is missing: add it"
        case "missing":
            reason = "is missing: add it (a record is `prompt` and `completion`, or `messages`)"
        case "too_short":
            reason = "is empty: a chat needs a user message and the assistant's answer"
        case "literal_error":
            reason = f"is {value!r:.40}: must be one of {error['ctx']['expected'].replace(' or ', ', ')}"
        case "finite_number" | "greater_than" | "float_type":
            reason = f"must be a number above 0, is {value!r:.40}"
        case "blank" | "surrogate" | "not_json":
            reason = error["msg"]
        case "string_unicode":  # pydantic's word for a field's name
            reason = SURROGATE
        case kind:
            reason = f"must be {_WANTED.get(kind, kind)}, is {kind_of(value)}"
    return reason


def unknown_field(name: str, known: Sequence[str]) -> str:
    """Returns why a field of this name is refused, with the name that was probably meant."""
    close = [other for other in [_OTHER_NAMES.get(name)] if other in known] or difflib.get_close_matches(name, known, 1)
    return "is an unknown field: " + (f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}")


def kind_of(value: Any) -> str:
    """Returns what a value is and how it begins."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    kinds |= {int: "a number", float: "a number"}
    kind = kinds.get(type(value), f"a value of type {type(value).__name__}")
    return f"{kind} ({json.dumps(value, ensure_ascii=False, default=str)[:40]})"
