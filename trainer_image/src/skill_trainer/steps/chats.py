"""Makes sure that the model's chat template shows what the data say: some refuse roles, others silently drop tools.

And that it takes the arguments that it is given; whether it lets the model think before it answers is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError

from skill_trainer.data import DataError, Record
from skill_trainer.errors import ConfigInvalid
from skill_trainer.graders.json_value import NotJsonError
from skill_trainer.graders.tool_call import TAG, calls_in
from skill_trainer.model import ChatTokenizer
from skill_trainer.prompts import Message
from skill_trainer.thoughts import is_open

Render = Callable[[Sequence[Message], Sequence[dict[str, Any]]], str]
"""From chat messages and tools to the text that the template makes of them."""
SWITCHES = ("enable_thinking", "thinking")
"""What templates call the argument that lets a model think before it answers (Qwen3; DeepSeek-V3.1, Granite)."""
_HELLO = ({"role": "user", "content": "Hello"},)


def require_arguments_known(tokens: ChatTokenizer) -> None:
    """Raises ConfigInvalid for an argument that the chat template does not speak of: it would be dropped silently."""
    template = str(tokens.tokenizer.chat_template)
    for name in tokens.arguments:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            raise ConfigInvalid(
                f"method.chatTemplateArguments.{name}: the model's chat template does not ask for it, and would leave "
                "it out without a word: remove it, or write the name that stands in the template"
            )


def unasked_thoughts(tokens: ChatTokenizer) -> Iterator[str]:
    """Yields a sentence where the model is let think before it answers and nobody has said so."""
    if any(switch in tokens.arguments for switch in SWITCHES):
        return
    asked = tokens.encode(_HELLO)
    off = (each for each in SWITCHES if _encoded(tokens, {each: False}) != asked)
    if switch := next(off, ""):
        way_out = f"write method.chatTemplateArguments: {{{switch}: false}}, or true where thoughts are meant"
    elif is_open(tokens.tokenizer.decode(asked)):
        way_out = "raise maxNewTokens, and write demonstrations that think, too"
    else:
        return
    yield (
        "the model's chat template lets it think before it answers; thoughts count among method.rollout.maxNewTokens, "
        f"and graders read them as part of the answer: {way_out}"
    )


def _encoded(tokens: ChatTokenizer, arguments: Mapping[str, Any]) -> list[int]:
    return replace(tokens, arguments={**tokens.arguments, **arguments}).encode(_HELLO)


@contextmanager
def naming(name: str, record: Record) -> Iterator[None]:
    """Some chat templates refuse some chats (a system message, two turns of one role): that is about the data."""
    try:
        yield
    except TemplateError as error:
        roles = ", ".join(str(message["role"]) for message in record.messages)
        raise DataError(
            "DataInvalid",
            f"{name}: the model's chat template refuses this chat ({roles}) or its demonstration ({error}): write it "
            "with the roles that this model knows",
        ) from error


def require_shown(name: str, record: Record, render: Render) -> None:
    """Raises DataError where the template leaves out a record's tools, their calls or results, or writes calls apart.

    What a template does not know it skips without a word, and the model would be taught to guess.
    """
    messages, tools = record.messages, record.tools
    whole = render(messages, tools)
    if tools and render(messages, ()) == whole:
        way_out = "describe them in a system message instead, or take a model that was trained with tools"
        raise _unseen(name, f"has no place for `tools`: {way_out}")
    if any("tool_calls" in each for each in messages) and render(_without_calls(messages), tools) == whole:
        raise _unseen(name, "leaves out `tool_calls`: write the calls as the assistant's `content`")
    if any(each["role"] == "tool" for each in messages) and render(_other_results(messages), tools) == whole:
        raise _unseen(name, "leaves out messages of role tool: write the results as the user's `content`")
    if tools and TAG in (record.completion or ""):
        _require_tags(name, record, render)


def _require_tags(name: str, record: Record, render: Render) -> None:
    """A teacher that is shown calls in a foreign form teaches it, and whoever serves the model reads its own only."""
    try:
        made = calls_in(record.completion or "")
    except NotJsonError:
        return  # a text about tags
    calls = [{"type": "function", "function": {"name": called, "arguments": given}} for called, given in made]
    turn = {"role": "assistant", "content": "", "tool_calls": calls}
    if TAG not in render([*record.messages, turn], record.tools):
        raise _unseen(
            name,
            f"writes tool calls without the {TAG} tags in which the demonstration would be shown: write the call as "
            "the assistant's `content`, in the form that this model was trained with",
        )


def _without_calls(messages: Sequence[Message]) -> list[Message]:
    return [{key: value for key, value in each.items() if key != "tool_calls"} for each in messages]


def _other_results(messages: Sequence[Message]) -> list[Message]:
    return [{**each, "content": each["content"] + "?"} if each["role"] == "tool" else each for each in messages]


def _unseen(name: str, reason: str) -> DataError:
    return DataError("DataInvalid", f"{name}: the model's chat template {reason}")
