"""A chat as data have it, taken apart: what the model reads, and the last turn, which it is to write.

Knows what a chat must be for any model. What one model's template refuses is found when it is tokenised.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skill_trainer.data.record import BadRecordError, Problem
from skill_trainer.data.tools import require_known_tool
from skill_trainer.data.words import kind_of

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chat:
    prompt: tuple[Message, ...]
    """As chat templates want it: `content` is always there, arguments of tool calls are objects."""
    completion: str | None
    """The last turn, where it is the assistant's: tool calls in the tags that Hermes and Qwen use."""


def read_chat(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Chat:
    """Returns the chat in messages that have the right fields and types, absent ones left out.

    Raises:
        BadRecordError: for an order of roles that no chat has, missing text, or calls of tools that are not there.
    """
    turns = [_plain(message, place, tools) for place, message in enumerate(messages)]
    *prompt, last = turns
    answered = last["role"] == "assistant"
    if not answered:
        prompt = turns
    elif not last["content"] and not last.get("tool_calls"):
        raise _bad("messages", "ends in an assistant message without content: write the demonstration there")
    if not prompt or prompt[-1]["role"] not in {"user", "tool"}:
        raise _bad("messages", "has no user (or tool) message right before the answer: put the question there")
    for place, turn in enumerate(prompt):
        _require_text(turn, messages[place], place)
        _require_order(turn, prompt[:place], place)
    return Chat(tuple(prompt), _as_text(last) if answered else None)


def _plain(message: Message, place: int, tools: Sequence[dict[str, Any]]) -> Message:
    """Returns a message with text and calls as templates want them; many read `content` without asking."""
    content = message.get("content") or ""
    plain = {**message, "content": content if content.strip() else ""}
    if message["role"] == "system":
        plain["content"] = sys.intern(plain["content"])  # the same in most records
    calls = plain.pop("tool_calls", [])
    if calls and message["role"] != "assistant":
        raise _bad(f"messages.{place}.tool_calls", "stand in a message that is not the assistant's: move them there")
    for number, call in enumerate(calls):
        field = f"messages.{place}.tool_calls.{number}.function"
        function = call["function"]
        require_known_tool(function["name"], tools, f"{field}.name")
        if not isinstance(function["arguments"], dict):
            reason = f"must be an object (or one as JSON text), is {kind_of(function['arguments'])}"
            raise _bad(f"{field}.arguments", reason)
    return {**plain, "tool_calls": calls} if calls else plain


def _require_text(turn: Message, message: Message, place: int) -> None:
    if not turn["content"] and not turn.get("tool_calls"):
        what = "is empty" if "content" in message else "is missing"
        raise _bad(f"messages.{place}.content", f"{what}: write the text or remove the message")


def _require_order(turn: Message, before: Sequence[Message], place: int) -> None:
    role = turn["role"]
    if role == "system" and before:
        raise _bad(f"messages.{place}.role", "is system, but only the first message can be: move it there")
    if role != "tool":
        return
    made = next((each for each in reversed(before) if each["role"] != "tool"), {})
    if not made.get("tool_calls"):
        raise _bad(f"messages.{place}.role", "is tool, but no assistant message with `tool_calls` is before it")
    ids = [call["id"] for call in made["tool_calls"] if "id" in call]
    named = turn.get("tool_call_id")
    if named and ids and named not in ids:
        raise _bad(f"messages.{place}.tool_call_id", f"{named!r:.40} is no call before it: they are {', '.join(ids)}")


def _as_text(turn: Message) -> str:
    parts = [turn["content"]] if turn["content"] else []
    for call in turn.get("tool_calls", ()):
        body = {"name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        parts.append(f"<tool_call>\n{json.dumps(body, ensure_ascii=False)}\n</tool_call>")
    return "\n".join(parts)


def _bad(field: str, reason: str) -> BadRecordError:
    return BadRecordError(Problem(field, reason))
