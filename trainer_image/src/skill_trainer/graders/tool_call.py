"""`tool_call`: the answer calls the expected tools with equal arguments, in any order, with any words around.

Understood forms: `<tool_call>` tags around one call or a list (Qwen, SmolLM2, Hermes), OpenAI's `tool_calls` with
`function` and its arguments as a JSON string, and the bare `{"name": …, "arguments": …}`.
"""

from __future__ import annotations

import re
from typing import Any

from skill_trainer.graders.grader import Grader
from skill_trainer.graders.json_value import NotJsonError, json_in, parse_json, same_value

TAG = "<tool_call>"
_TAGGED = re.compile(rf"{TAG}(.*?)(?:</tool_call>|$)", re.DOTALL)

Call = tuple[str, Any]


def calls_in(text: str) -> list[Call]:
    """Returns name and arguments of every tool call; raises NotJsonError where there is none or one is malformed."""
    tagged = _TAGGED.findall(text)
    values = [parse_json(body) for body in tagged] if tagged else [json_in(text)]
    try:
        calls = [call for value in values for call in _calls(value)]
    except RecursionError as error:
        raise NotJsonError("nested too deeply") from error
    if not calls:
        raise NotJsonError("no tool call")
    return calls


def _calls(value: Any) -> list[Call]:
    if isinstance(value, list):
        return [call for item in value for call in _calls(item)]
    if not isinstance(value, dict):
        raise NotJsonError("a tool call is an object")
    if "tool_calls" in value:
        return _calls(value["tool_calls"])
    function = value.get("function", value)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise NotJsonError("a tool call without a name")
    arguments = function.get("arguments", function.get("parameters", {}))
    return [(function["name"], parse_json(arguments) if isinstance(arguments, str) else arguments)]


def _problem(expected: str) -> str:
    try:
        calls_in(expected)
    except NotJsonError as error:
        return f'is not a tool call ({error}): write {{"name": "…", "arguments": {{…}}}}'
    return ""


def _right(text: str, expected: str) -> bool:
    try:
        wanted, made = calls_in(expected), calls_in(text)
        return len(made) == len(wanted) and _matched(made, wanted)
    except (NotJsonError, RecursionError):
        return False


def _matched(made: list[Call], wanted: list[Call]) -> bool:
    """Returns whether every made call equals another one of the wanted."""
    left = list(wanted)
    for name, arguments in made:
        same = [place for place, want in enumerate(left) if want[0] == name and same_value(want[1], arguments)]
        if not same:
            return False
        del left[same[0]]
    return True


GRADER = Grader("tool_call", _right, _problem)
