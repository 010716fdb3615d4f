"""The forms that a record may have (docs/data.md) as strict schemas: nothing unknown, nothing blank.

Turns one JSON value into a Record or into a problem in plain words. Knows no file.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from skill_contract.spec import GraderName
from skill_trainer.data.chat import Chat, read_chat
from skill_trainer.data.json_text import decode_json
from skill_trainer.data.record import BadRecordError, Kind, Problem, Record
from skill_trainer.data.tools import read_tools
from skill_trainer.data.words import SURROGATE, kind_of, reason_of
from skill_trainer.graders import GRADERS

_T = TypeVar("_T")


def _sound_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", SURROGATE) from None
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "is empty: write the text or remove the record")
    return text


def _sound(value: _T) -> _T:
    """Returns a JSON value that can be written as JSON again."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", SURROGATE) from None
    except ValueError:
        raise PydanticCustomError("not_json", "has a number that is not finite, as JSON knows none") from None
    except TypeError as error:
        raise PydanticCustomError("not_json", f"has a value that JSON does not know ({error})") from None
    return value


def _from_text(value: Any) -> Any:
    """Parquet has no column for objects of many shapes, so lists and objects may come as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return decode_json(value)
    except BadRecordError:
        return value  # refused for being text


Sound = Annotated[str, AfterValidator(_sound_text)]
Text = Annotated[Sound, AfterValidator(_not_blank)]
Value = Annotated[Any, AfterValidator(_sound)]
"""Any JSON value."""
AsText = BeforeValidator(_from_text)


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Function(_Form):
    name: Text
    arguments: Annotated[Value, AsText] = {}


class _ToolCall(_Form):
    id: Text | None = None
    type: Literal["function"] = "function"
    function: _Function


class _Message(_Form):
    role: Literal["system", "user", "assistant", "tool"]
    content: Sound | None = None
    tool_calls: Annotated[list[_ToolCall], AsText] | None = None
    tool_call_id: Text | None = None
    name: Text | None = None


class _Common(_Form):
    id: Text | None = None
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    demonstration: Text | None = None
    answer: Text | None = None
    grader: GraderName | None = None
    tools: Annotated[list[Annotated[dict[str, Any], AsText, AfterValidator(_sound)]], AsText] = []


class PromptForm(_Common):
    """`prompt` and `completion` as strings."""

    prompt: Text
    completion: Text | None = None


class ChatForm(_Common):
    """`messages`, whose last one, an assistant's turn, is the completion."""

    messages: Annotated[list[Annotated[_Message, AsText]], AsText] = Field(min_length=1)


FIELDS = tuple(sorted({*PromptForm.model_fields, *ChatForm.model_fields}))
"""Names of all fields of both forms."""


def read_record(value: Any, *, kind: Kind, line: int, grader: GraderName | None = None) -> Record:
    """Returns the record in one JSON value.

    `grader` is the suite's, for which the expected answer must be usable unless the record names its own.

    Raises:
        BadRecordError: with every problem that was found.
    """
    if not isinstance(value, dict):
        way_out = 'write {"prompt": "…", "completion": "…"}'
        raise BadRecordError(Problem("(line)", f"is {kind_of(value)}, not a JSON object: {way_out}"))
    form: type[ChatForm | PromptForm] = ChatForm if "messages" in value else PromptForm
    try:
        parsed = form.model_validate(value)
    except ValidationError as error:
        # A field by a wrong name is missing, too: the name says more.
        problems = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        raise BadRecordError(*(_problem(each, form) for each in problems)) from error
    record = _record(parsed, line)
    if problem := _missing(record, kind) or _not_gradable(record, grader):
        raise BadRecordError(problem)
    return record


def _problem(error: ErrorDetails, form: type[_Common]) -> Problem:
    loc = error["loc"]
    field = ".".join(str(part) for part in loc)
    if error["type"] == "extra_forbidden" and form is ChatForm and field in {"prompt", "completion"}:
        reason = "stands beside `messages`: a record is either `prompt` and `completion`, or `messages`"
        return Problem(field, reason)
    # messages.0.x, messages.0.tool_calls.0.x, messages.0.tool_calls.0.function.x
    nested: dict[int, type[_Form]] = {3: _Message, 5: _ToolCall, 6: _Function}
    known = nested[len(loc)].model_fields if len(loc) in nested else FIELDS
    return Problem(field or "(line)", reason_of(error, list(known)))


def _record(form: ChatForm | PromptForm, line: int) -> Record:
    tools = read_tools(json.dumps(form.tools, ensure_ascii=False)) if form.tools else ()
    if isinstance(form, ChatForm):
        chat = read_chat([message.model_dump(exclude_none=True) for message in form.messages], tools)
    else:
        chat = Chat(({"role": "user", "content": form.prompt},), form.completion)
    return Record(
        id=form.id or f"line-{line}",
        messages=chat.prompt,
        demonstration=form.demonstration or chat.completion,
        completion=chat.completion,
        answer=form.answer,
        grader=form.grader,
        tools=tools,
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
