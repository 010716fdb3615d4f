"""The tools of a record: functions with a JSON Schema each, which go to the chat template as they are."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from skill_trainer.data.record import BadRecordError, Problem
from skill_trainer.data.words import kind_of


@lru_cache(maxsize=1024)
def read_tools(text: str) -> tuple[dict[str, Any], ...]:
    """Returns the tools in the JSON text of a list; the same text gives the same objects, which nobody may change.

    Most records of a file have the same tools: so they are checked, and kept, once.

    Raises:
        BadRecordError: for a tool that has no name, or parameters that are no JSON Schema of an object.
    """
    tools: list[dict[str, Any]] = json.loads(text)
    names: list[str] = []
    for place, tool in enumerate(tools):
        field = f"tools.{place}"
        if "function" in tool:
            field += ".function"
        name = _checked_name(tool.get("function", tool), field)
        if name in names:
            raise _bad(f"{field}.name", f"{name!r:.40} is the name of another tool, too: give each its own")
        names.append(name)
    return tuple(tools)


def tool_names(tools: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the names of checked tools."""
    return [tool.get("function", tool)["name"] for tool in tools]


def require_known_tool(name: str, tools: Sequence[dict[str, Any]], field: str) -> None:
    """Raises BadRecordError where a call names none of the record's tools; a record without tools may call any."""
    names = tool_names(tools)
    if names and name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"they are {', '.join(names)}"
        raise _bad(field, f"{name!r:.40} is none of the record's tools: {hint}")


def _checked_name(function: Any, field: str) -> str:
    if not isinstance(function, dict):
        raise _bad(field, f"must be an object, is {kind_of(function)}")
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise _bad(f"{field}.name", "is missing: a tool is a function with a name, a description and parameters")
    if "parameters" in function:
        _require_object_schema(function["parameters"], f"{field}.parameters")
    return name


def _require_object_schema(schema: Any, field: str) -> None:
    """Raises BadRecordError where `schema` does not describe an object; one that says nothing takes no arguments."""
    if schema == {}:
        return
    if not isinstance(schema, dict) or schema.get("type") != "object":
        way_out = 'write {"type": "object", "properties": {…}}'
        raise _bad(field, f"must be a JSON Schema of type object, is {kind_of(schema)}: {way_out}")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = ".".join(str(part) for part in error.absolute_path)
        raise _bad(f"{field}.{place}" if place else field, f"is no JSON Schema ({error.message:.100})") from error


def _bad(field: str, reason: str) -> BadRecordError:
    return BadRecordError(Problem(field, reason))
