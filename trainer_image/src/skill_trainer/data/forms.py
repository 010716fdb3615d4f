"""The forms that a line of data may have (docs/data.md) as strict schemas: nothing unknown, nothing blank.

Turns one decoded JSON value into a Record or into problems in plain words. Knows no file and no line.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from skill_contract.spec import GraderName
from skill_trainer.data.record import Kind, Record
from skill_trainer.graders import GRADERS

_T = TypeVar("_T")


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field, and the way out."""

    field: str
    reason: str


class BadRecordError(ValueError):
    """A line that is no record."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.reason}" for problem in problems))
        self.problems = problems


def _sound_text(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "is empty: write the text or remove the record")
    return _sound(text)


_SURROGATE = "has half of a surrogate pair (\\ud800 to \\udfff): write the whole character"


def _sound(value: _T) -> _T:
    """Returns a JSON value that can be written as JSON again."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", _SURROGATE) from None
    except ValueError:
        raise PydanticCustomError("not_finite", "has a number that is not finite, as JSON knows none") from None
    return value


Text = Annotated[str, AfterValidator(_sound_text)]
Value = Annotated[Any, AfterValidator(_sound)]
"""Any JSON value."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Function(_Form):
    name: Text
    arguments: Value = {}


class _ToolCall(_Form):
    id: Text | None = None
    type: Literal["function"] = "function"
    function: _Function


class _Message(_Form):
    role: Literal["system", "user", "assistant", "tool"]
    content: Text | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: Text | None = None
    name: Text | None = None


class _Common(_Form):
    id: Text | None = None
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    demonstration: Text | None = None
    answer: Text | None = None
    grader: GraderName | None = None
    tools: list[Annotated[dict[str, Any], AfterValidator(_sound)]] = []


class PromptForm(_Common):
    """`prompt` and `completion` as strings."""

    prompt: Text
    completion: Text | None = None


class ChatForm(_Common):
    """`messages`, whose last one, an assistant's turn, is the completion."""

    messages: list[_Message] = Field(min_length=1)


def read_record(value: Any, *, kind: Kind, line: int, grader: GraderName | None = None) -> Record:
    """Returns the record in one JSON value.

    `grader` is the suite's, for which the expected answer must be usable unless the record names its own.

    Raises:
        BadRecordError: with every problem that was found.
    """
    if not isinstance(value, dict):
        way_out = 'write {"prompt": "…", "completion": "…"}'
        raise BadRecordError(Problem("(line)", f"is {_kind_of(value)}, not a JSON object: {way_out}"))
    form: type[ChatForm | PromptForm] = ChatForm if "messages" in value else PromptForm
    try:
        parsed = form.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise BadRecordError(*(_in_plain_words(each, form) for each in problems)) from error
    record = _chat_record(parsed, line) if isinstance(parsed, ChatForm) else _prompt_record(parsed, line)
    if problem := _missing(record, kind) or _not_gradable(record, grader):
        raise BadRecordError(problem)
    return record


def _prompt_record(form: PromptForm, line: int) -> Record:
    return _record(form, ({"role": "user", "content": form.prompt},), form.completion, line)


def _chat_record(form: ChatForm, line: int) -> Record:
    *prompt, last = form.messages
    completion = _turn_text(last) if last.role == "assistant" else None
    if completion is None:
        prompt.append(last)
    if not prompt or prompt[-1].role not in {"user", "tool"}:
        way_out = "put the question there"
        raise BadRecordError(Problem("messages", f"has no user (or tool) message right before the answer: {way_out}"))
    for place, message in enumerate(prompt):
        if not message.content and not message.tool_calls:
            reason = "is missing: write the text or remove the message"
            raise BadRecordError(Problem(f"messages.{place}.content", reason))
    return _record(form, tuple(_plain(message) for message in prompt), completion, line)


def _plain(message: _Message) -> dict[str, Any]:
    """Returns a message as chat templates want it; `content` is always there, as templates read it without asking."""
    plain = {"content": message.content or "", **message.model_dump(exclude_none=True)}
    for call in plain.get("tool_calls", ()):
        call["function"]["arguments"] = _arguments(call["function"].get("arguments"))
    return plain


def _turn_text(message: _Message) -> str:
    """Returns an assistant's turn as one text, tool calls in the tags that Hermes, Qwen and SmolLM2 use."""
    parts = [message.content] if message.content else []
    for call in message.tool_calls or []:
        body = {"name": call.function.name, "arguments": _arguments(call.function.arguments)}
        parts.append(f"<tool_call>\n{json.dumps(body, ensure_ascii=False)}\n</tool_call>")
    if not parts:
        reason = "ends in an assistant message without content: write the demonstration there"
        raise BadRecordError(Problem("messages", reason))
    return "\n".join(parts)


def _arguments(value: Any) -> dict[str, Any]:
    """Returns a tool call's arguments, which OpenAI's form has as JSON in a string."""
    try:
        arguments = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        reason = f"must be an object (or one as JSON text), is {_kind_of(value)}"
        raise BadRecordError(Problem("messages.tool_calls.function.arguments", reason))
    return arguments


def _record(form: _Common, messages: tuple[dict[str, Any], ...], completion: str | None, line: int) -> Record:
    return Record(
        id=form.id or f"line-{line}",
        messages=messages,
        demonstration=form.demonstration or completion,
        completion=completion,
        answer=form.answer,
        grader=form.grader,
        tools=tuple(form.tools),
        weight=form.weight,
        line=line,
    )


def _missing(record: Record, kind: Kind) -> Problem | None:
    if kind == "evaluation" and not record.expected:
        return Problem("answer", "is missing: add `answer` (or a completion) to grade by")
    if kind == "train" and record.completion is None:
        last = record.messages[-1]["role"]
        way_out = "add the demonstration, or end `messages` in an assistant's message"
        return Problem("completion", f"is missing (the record ends in a message of the {last}): {way_out}")
    return None


def _not_gradable(record: Record, suite_grader: GraderName | None) -> Problem | None:
    grader = record.grader or suite_grader
    if grader is None or not record.expected:
        return None
    problem = GRADERS[grader].problem(record.expected)
    field = "answer" if record.answer else "completion"
    return Problem(field, f"{problem} (grader {grader})") if problem else None


def _in_plain_words(error: ErrorDetails, form: type[_Common]) -> Problem:
    field = ".".join(str(part) for part in error["loc"])
    return Problem(field or "(line)", _reason(error, form))


def _reason(error: ErrorDetails, form: type[_Common]) -> str:
    value = error["input"]
    match error["type"]:
        case "extra_forbidden":
            reason = _unknown(str(error["loc"][-1]), form, nested=len(error["loc"]) > 1)
        case "missing":
            reason = "is missing: add it (a record is `prompt` and `completion`, or `messages`)"
        case "too_short":
            reason = "is empty: a chat needs a user message and the assistant's answer"
        case "literal_error":
            reason = f"is {value!r:.40}: must be one of {error['ctx']['expected'].replace(' or ', ', ')}"
        case "finite_number" | "greater_than" | "float_type":
            reason = f"must be a number above 0, is {value!r:.40}"
        case "blank" | "surrogate" | "not_finite":
            reason = error["msg"]
        case "string_unicode":  # pydantic's word for a field's name
            reason = _SURROGATE
        case kind:
            reason = f"must be {_WANTED.get(kind, kind)}, is {_kind_of(value)}"
    return reason


_WANTED = {"string_type": "text in quotes", "list_type": "a list", "model_type": "an object", "dict_type": "an object"}


def _unknown(name: str, form: type[_Common], *, nested: bool) -> str:
    if nested:
        return "is an unknown field: remove it"
    known = sorted({*PromptForm.model_fields, *ChatForm.model_fields})
    if form is ChatForm and name in {"prompt", "completion"}:
        return "stands beside `messages`: a record is either `prompt` and `completion`, or `messages`"
    close = difflib.get_close_matches(name, known, 1)
    return "is an unknown field: " + (f"did you mean `{close[0]}`?" if close else f"known are {', '.join(known)}")


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return f"{kinds.get(type(value), 'a number')} ({json.dumps(value, ensure_ascii=False, default=str)[:40]})"
