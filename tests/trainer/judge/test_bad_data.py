"""Every kind of bad data, and the sentence that says where, what and what to do. Nothing else is ever raised."""

# ruff: noqa: E501 - a table has one row a line

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skill_trainer.data import DataError, parse_records, read_records

GOOD = '{"prompt": "What is red?", "completion": "A colour."}'
USER = {"role": "user", "content": "What is red?"}
ASSISTANT = {"role": "assistant", "content": "A colour."}
RESULT = {"role": "tool", "content": "7"}
CALL = {"id": "c1", "function": {"name": "find", "arguments": {"city": "Nova"}}}
CALLS = {"role": "assistant", "tool_calls": [CALL]}
FIND = {
    "type": "function",
    "function": {"name": "find", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def chat(*messages: dict, **fields) -> str:
    return json.dumps({"messages": list(messages), **fields})


def calling(**function) -> str:
    return chat(USER, {"role": "assistant", "tool_calls": [{"function": function}]})


def tools(*given: object) -> str:
    return chat(USER, ASSISTANT, tools=list(given))


RECORD = 'write {"prompt": "…", "completion": "…"}'
SURROGATE = "has half of a surrogate pair (\\ud800 to \\udfff): write the whole character"
ADD = "add the demonstration, or end `messages` in an assistant's message"
KNOWN = "known are answer, completion, demonstration, grader, id, messages, prompt, tools, weight"
FUNCTION = "messages.1.tool_calls.0.function"

LINES: dict[str, tuple[str | bytes, str]] = {
    # What no JSON is.
    "not JSON": ('{"prompt": "x", ', "(line): is not JSON (Expecting property name enclosed in double quotes at column 17): one whole object a line"),
    "two objects in a line": (GOOD + GOOD, "(line): is not JSON (Extra data at column 54): one whole object a line"),
    "single quotes": ("{'prompt': 'x'}", "(line): is not JSON (Expecting property name enclosed in double quotes at column 2): one whole object a line"),
    "not UTF-8": (b'{"prompt": "caf\xe9", "completion": "x"}', "(line): is not UTF-8 (byte 16 is 0xe9): save the file as UTF-8"),
    "UTF-16 in the middle": ("\0".join(GOOD), "(line): has zero bytes, as UTF-16 has: save the file as UTF-8"),
    "empty line": ("  ", "(line): is empty: remove it"),
    "a huge line": (b'{"prompt": "' + b"x" * (17 << 20) + b'"}', "(line): is longer than 16 MiB (17.0): no prompt is, so split it up"),
    "nested without end": ('{"prompt": ' + "[" * 200_000 + "]" * 200_000 + "}", "(line): is nested too deeply to be a record (more than 64 levels)"),
    "nested too deeply": (tools("X").replace('"X"', "[" * 65 + "]" * 65), "(line): is nested too deeply to be a record (more than 64 levels)"),
    "endless number": ('{"prompt": "x", "weight": ' + "9" * 5000 + "}", "(line): has a whole number that is too long to be read: shorten it"),
    "half a surrogate": ('{"prompt": "\\ud800", "completion": "y"}', f"prompt: {SURROGATE}"),
    "half a surrogate as a field": ('{"prompt": "x", "completion": "y", "\\ud800": 1}', f"(line): {SURROGATE}"),
    "half a surrogate in a tool": (tools({"x": "\ud800"}), f"tools.0: {SURROGATE}"),
    "half a surrogate in an argument": (calling(name="f", arguments={"x": "\ud800"}), f"{FUNCTION}.arguments: {SURROGATE}"),
    # What no record is.
    "a list": ('["x", "y"]', f'(line): is a list (["x", "y"]), not a JSON object: {RECORD}'),
    "a text": ('"prompt"', f'(line): is text ("prompt"), not a JSON object: {RECORD}'),
    "null": ("null", f"(line): is null, not a JSON object: {RECORD}"),
    "field twice": ('{"prompt": "a", "prompt": "b", "completion": "c"}', "prompt: stands twice in the record: keep one"),
    "misspelt field": ('{"prompt": "x", "completon": "y"}', "completon: is an unknown field: did you mean `completion`?"),
    "another format's field": ('{"instruction": "x", "completion": "y"}', "instruction: is an unknown field: did you mean `prompt`?"),
    "unknown field": ('{"prompt": "x", "completion": "y", "zzz": 1}', f"zzz: is an unknown field: {KNOWN}"),
    "neither form": ('{"completion": "y"}', "prompt: is missing: add it (a record is `prompt` and `completion`, or `messages`)"),
    "both forms": (chat(USER, ASSISTANT, prompt="x"), "prompt: stands beside `messages`: a record is either `prompt` and `completion`, or `messages`"),
    "no completion": ('{"prompt": "x"}', f"completion: is missing (the record ends in a message of the user): {ADD}"),
    "number as prompt": ('{"prompt": 3, "completion": "y"}', "prompt: must be text in quotes, is a number (3)"),
    "blank prompt": ('{"prompt": " \\n", "completion": "y"}', "prompt: is empty: write the text or remove the record"),
    "blank completion": ('{"prompt": "x", "completion": ""}', "completion: is empty: write the text or remove the record"),
    "blank demonstration": ('{"prompt": "x", "completion": "y", "demonstration": ""}', "demonstration: is empty: write the text or remove the record"),
    "id a number": ('{"prompt": "x", "completion": "y", "id": 7}', "id: must be text in quotes, is a number (7)"),
    "repeated id": ('{"prompt": "x", "completion": "y", "id": "line-1"}', "id: 'line-1' is line 1's: give each its own"),
    "unknown grader": ('{"prompt": "x", "completion": "y", "grader": "fuzzy"}', "grader: is 'fuzzy': must be one of 'exact', 'contains', 'regex', 'choice', 'number', 'json', 'tool_call'"),
    # Weights.
    "weight NaN": ('{"prompt": "x", "completion": "y", "weight": NaN}', "weight: must be a number above 0, is nan"),
    "weight infinite": ('{"prompt": "x", "completion": "y", "weight": Infinity}', "weight: must be a number above 0, is inf"),
    "weight zero": ('{"prompt": "x", "completion": "y", "weight": 0}', "weight: must be a number above 0, is 0"),
    "weight below zero": ('{"prompt": "x", "completion": "y", "weight": -1}', "weight: must be a number above 0, is -1"),
    "weight as text": ('{"prompt": "x", "completion": "y", "weight": "2"}', "weight: must be a number above 0, is '2'"),
    "weight true": ('{"prompt": "x", "completion": "y", "weight": true}', "weight: must be a number above 0, is True"),
    # Chats.
    "messages a text": ('{"messages": "hello"}', 'messages: must be a list, is text ("hello")'),
    "no messages": ('{"messages": []}', "messages: is empty: a chat needs a user message and the assistant's answer"),
    "message a text": ('{"messages": ["hello"]}', 'messages.0: must be an object, is text ("hello")'),
    "last not assistant": (chat(USER, ASSISTANT, USER), f"completion: is missing (the record ends in a message of the user): {ADD}"),
    "only an assistant": (chat(ASSISTANT), "messages: has no user (or tool) message right before the answer: put the question there"),
    "two assistants": (chat(USER, ASSISTANT, ASSISTANT), "messages: has no user (or tool) message right before the answer: put the question there"),
    "unknown role": (chat({"role": "human", "content": "x"}, ASSISTANT), "messages.0.role: is 'human': must be one of 'system', 'user', 'assistant', 'tool'"),
    "system in the middle": (chat(USER, {"role": "system", "content": "x"}, USER, ASSISTANT), "messages.1.role: is system, but only the first message can be: move it there"),
    "message without content": (chat({"role": "user"}, ASSISTANT), "messages.0.content: is missing: write the text or remove the message"),
    "blank content": (chat({"role": "user", "content": " "}, ASSISTANT), "messages.0.content: is empty: write the text or remove the message"),
    "content in parts": (chat({"role": "user", "content": []}, ASSISTANT), "messages.0.content: must be text in quotes, is a list ([])"),
    "unknown field of a message": (chat(USER | {"mood": "x"}, ASSISTANT), "messages.0.mood: is an unknown field: known are role, content, tool_calls, tool_call_id, name"),
    "misspelt field of a message": (chat({"role": "user", "contents": "x"}, ASSISTANT), "messages.0.contents: is an unknown field: did you mean `content`?"),
    "assistant without content": (chat(USER, {"role": "assistant"}), "messages: ends in an assistant message without content: write the demonstration there"),
    # Tools and their calls.
    "tools an object": (chat(USER, ASSISTANT, tools={"name": "x"}), 'tools: must be a list, is an object ({"name": "x"})'),
    "tools a broken text": (chat(USER, ASSISTANT, tools="[{"), 'tools: must be a list, is text ("[{")'),
    "tool a text": (tools("find"), 'tools.0: must be an object, is text ("find")'),
    "NaN in a tool": (tools({"x": float("nan")}), "tools.0: has a number that is not finite, as JSON knows none"),
    "function a text": (tools({"type": "function", "function": "find"}), 'tools.0.function: must be an object, is text ("find")'),
    "tool without name": (tools({"type": "function", "function": {}}), "tools.0.function.name: is missing: a tool is a function with a name, a description and parameters"),
    "two tools of a name": (tools(FIND, FIND), "tools.1.function.name: 'find' is the name of another tool, too: give each its own"),
    "parameters without type": (tools({"name": "find", "parameters": {"city": "string"}}), 'tools.0.parameters: must be a JSON Schema of type object, is an object ({"city": "string"}): write {"type": "object", "properties": {…}}'),
    "parameters of no type": (tools({"name": "find", "parameters": {"type": "object", "properties": {"city": {"type": "strng"}}}}), "tools.0.parameters.properties.city.type: is no JSON Schema ('strng' is not valid under any of the given schemas)"),
    "required is no list": (tools({"name": "find", "parameters": {"type": "object", "required": "city"}}), "tools.0.parameters.required: is no JSON Schema ('city' is not of type 'array')"),
    "call without name": (calling(arguments={}), f"{FUNCTION}.name: is missing: add it"),
    "misspelt field of a call": (calling(nme="f"), f"{FUNCTION}.nme: is an unknown field: did you mean `name`?"),
    "call of no tool": (chat(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "fnd"}}]}, tools=[FIND]), f"{FUNCTION}.name: 'fnd' is none of the record's tools: did you mean `find`?"),
    "broken arguments": (calling(name="f", arguments="{"), f'{FUNCTION}.arguments: must be an object (or one as JSON text), is text ("{{")'),
    "broken arguments in the prompt": (chat(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "["}}]}, RESULT, ASSISTANT), f'{FUNCTION}.arguments: must be an object (or one as JSON text), is text ("[")'),
    "call of the user": (chat(USER | {"tool_calls": [CALL]}, ASSISTANT), "messages.0.tool_calls: stand in a message that is not the assistant's: move them there"),
    "result without a call": (chat(USER, RESULT, ASSISTANT), "messages.1.role: is tool, but no assistant message with `tool_calls` is before it"),
    "result of no call": (chat(USER, CALLS, RESULT | {"tool_call_id": "c2"}, ASSISTANT), "messages.2.tool_call_id: 'c2' is no call before it: they are c1"),
}  # fmt: skip
"""The second of three lines, and what is said of it."""


@pytest.mark.parametrize("kind", LINES)
def test_bad_line(kind: str):
    line, sentence = LINES[kind]
    content = b"\n".join(each if isinstance(each, bytes) else each.encode() for each in (GOOD, line, GOOD))
    with pytest.raises(DataError) as caught:
        parse_records(content, "train.jsonl", "train")
    assert caught.value.reason == "DataInvalid"
    assert caught.value.message == (f"train.jsonl: 1 of 3 records cannot be used\ntrain.jsonl, line 2, {sentence}")
    caught.value.message.encode()  # whatever stands in the data, the message can be sent


ANSWERS: dict[str, tuple[dict, str | None, str]] = {
    "nothing to grade by": ({}, None, "answer: is missing: add `answer` (or a completion) to grade by"),
    "only punctuation": ({"answer": "..."}, "contains", "answer: has no letter or digit to look for ('...'): give the words that a right answer contains (grader contains)"),
    "invalid regex": ({"answer": "(", "grader": "regex"}, None, "answer: is not a regular expression (missing ) at position 1): escape its special characters or use the grader contains (grader regex)"),
    "invalid regex for the suite": ({"answer": "["}, "regex", "answer: is not a regular expression (unterminated character set at position 1): escape its special characters or use the grader contains (grader regex)"),
    "not a number": ({"answer": "many"}, "number", "answer: is not a number ('many'): write 42, 1250.5 or 3.14 ± 0.01 (grader number)"),
    "not a letter": ({"answer": "Paris"}, "choice", "answer: is not one letter ('Paris'): the grader choice compares letters such as B (grader choice)"),
    "not JSON": ({"answer": "{a: 1}"}, "json", "answer: is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)): write the expected value as JSON, a text with its quotes (grader json)"),
    "JSON with NaN": ({"answer": "[NaN]"}, "json", "answer: is not JSON (NaN is not JSON): write the expected value as JSON, a text with its quotes (grader json)"),
    "not a tool call": ({"completion": "call it"}, "tool_call", 'completion: is not a tool call (no object or array): write {"name": "…", "arguments": {…}} (grader tool_call)'),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
def test_answer_that_cannot_be_graded(kind: str):
    fields, grader, sentence = ANSWERS[kind]
    line = json.dumps({"prompt": "x", **fields})
    with pytest.raises(DataError) as caught:
        parse_records(line.encode(), "f", "evaluation", grader)
    assert caught.value.message == f"f: 1 of 1 records cannot be used\nf, line 1, {sentence}"


def parquet(rows: list[dict] | None = None, schema: pa.Schema | None = None, **columns: list) -> bytes:
    table = pa.Table.from_pylist(rows, schema) if rows is not None else pa.table(columns)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


PACKED = gzip.compress(GOOD.encode() + b"\n" + random.Random(0).randbytes(500))
WRITTEN = parquet(prompt=["x"], completion=["y"])
INDEX = "column '__index_level_0__' is an unknown field: " + KNOWN

FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.jsonl", b"", "the file is empty: write at least one record"),
    "empty, packed": ("a.jsonl.gz", gzip.compress(b""), "the file is empty: write at least one record"),
    "no rows": ("a.parquet", parquet(prompt=pa.array([], pa.string())), "the file is empty: write at least one record"),
    "another ending": ("a.json", b"{}", "the name must end in .jsonl, .jsonl.gz, .parquet: convert the data to one of them"),
    "UTF-16": ("a.jsonl", GOOD.encode("utf-16"), "is UTF-16 text: save it as UTF-8"),
    "UTF-16, big end first": ("a.jsonl", b"\xfe\xff" + GOOD.encode("utf-16-be"), "is UTF-16 text: save it as UTF-8"),
    "one JSON list": ("a.jsonl", f"[{GOOD}, {GOOD}]".encode(), "begins with a list: write its objects one a line, without brackets and commas (jq -c '.[]')"),
    "one JSON list, indented": ("a.jsonl", f"\n[\n  {GOOD}\n]".encode().lstrip(), "begins with a list: write its objects one a line, without brackets and commas (jq -c '.[]')"),
    "indented objects": ("a.jsonl", json.dumps(json.loads(GOOD), indent=2).encode(), "has an object that goes over several lines: write each record on one line (jq -c .)"),
    "gzip under a plain name": ("a.jsonl", PACKED, "is packed with gzip: give it a name that ends in .jsonl.gz"),
    "Parquet under a plain name": ("a.jsonl", WRITTEN, "is a Parquet file: give it a name that ends in .parquet"),
    "zstd": ("a.jsonl", b"\x28\xb5\x2f\xfd1234", "is packed with zstd: unpack it, or pack it with gzip"),
    "a spreadsheet": ("a.jsonl", b"PK\x03\x04....", "is a ZIP archive or a spreadsheet: export it as JSON Lines"),
    "plain under a packed name": ("a.jsonl.gz", GOOD.encode(), "is not a whole gzip file (Not a gzipped file (b'{\"')): compress it again"),
    "gzip cut off": ("a.jsonl.gz", PACKED[:-9], "is not a whole gzip file (Compressed file ended before the end-of-stream marker was reached): compress it again"),
    "plain under a Parquet name": ("a.parquet", GOOD.encode(), "cannot be read as Parquet (Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.): write it again"),
    "Parquet cut off": ("a.parquet", WRITTEN[:-9], "cannot be read as Parquet (Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.): write it again"),
    "a column that is no field": ("a.parquet", parquet(promt=["x"]), "column 'promt' is an unknown field: did you mean `prompt`?"),
    "pandas' index": ("a.parquet", parquet(prompt=["x"], __index_level_0__=[1]), INDEX),
    "columns missing": ("a.parquet", parquet(completion=["x"], id=["1"]), "has neither a column `prompt` nor `messages` (it has completion, id)"),
}  # fmt: skip
"""Whole files, and what is said after their name."""


@pytest.mark.parametrize("kind", FILES)
def test_bad_file(tmp_path, kind: str):
    name, content, sentence = FILES[kind]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_records(str(path))
    assert caught.value.reason == "DataInvalid"
    assert caught.value.message == f"{path}: {sentence}"


ROWS: dict[str, tuple[bytes, str]] = {
    "prompts of another type": (parquet(prompt=[1], completion=["y"]), "prompt: must be text in quotes, is a number (1)"),
    "a date": (parquet(prompt=[date(2026, 1, 2)], completion=["y"]), 'prompt: must be text in quotes, is a value of type date ("2026-01-02")'),
    "bytes": (parquet(prompt=[b"x"], completion=["y"]), 'prompt: must be text in quotes, is a value of type bytes ("b\'x\'")'),
    "a null": (parquet(prompt=["x"], completion=pa.array([None], pa.string())), f"completion: is missing (the record ends in a message of the user): {ADD}"),
    "pandas' missing number": (parquet(prompt=["x"], completion=["y"], weight=[float("nan")]), "weight: must be a number above 0, is nan"),
    "messages as columns": (parquet(messages=[{"role": ["user"], "content": ["x"]}]), 'messages: must be a list, is an object ({"role": ["user"], "content": ["x"]})'),
    "a role that is none": (parquet(messages=[[{"role": "human", "content": "x"}]]), "messages.0.role: is 'human': must be one of 'system', 'user', 'assistant', 'tool'"),
    "a date in a tool": (parquet(prompt=["x"], completion=["y"], tools=[[{"name": "f", "since": date(2026, 1, 2)}]]), "tools.0: has a value that JSON does not know (Object of type date is not JSON serializable)"),
}  # fmt: skip
"""Parquet files with one row, and what is said of it."""


@pytest.mark.parametrize("kind", ROWS)
def test_bad_row(tmp_path, kind: str):
    content, sentence = ROWS[kind]
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_records(str(path))
    assert caught.value.message == f"{path}: 1 of 1 records cannot be used\n{path}, row 1, {sentence}"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/a\.jsonl: there is no such file: check the address") as caught:
        read_records(str(tmp_path / "a.jsonl"))
    assert caught.value.reason == "DataMissing"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b"{}\n" * 4_000),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 4_000)),
        ("a.jsonl.gz", gzip.compress(b"x" * 10_001)),
        ("a.parquet", parquet(prompt=["x" * 10_000] * 2, completion=["y"] * 2)),
    ],
)
def test_more_than_fits_is_refused_before_it_is_held(tmp_path, monkeypatch, name: str, content: bytes):
    for module in ("lines", "parquet"):
        monkeypatch.setattr(f"skill_trainer.data.{module}.MAX_BYTES", 10_000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"unpacks to more than 0\.0 GB: split it up"):
        read_records(str(tmp_path / name))


def test_all_bad_records_are_counted_and_ten_are_shown():
    with pytest.raises(DataError) as caught:
        parse_records("\n".join([GOOD, *["{}"] * 13]).encode(), "train.jsonl", "train")
    lines = caught.value.message.splitlines()
    assert lines[0] == "train.jsonl: 13 of 14 records cannot be used"
    assert [line.split(",")[1].strip() for line in lines[1:-1]] == [f"line {number}" for number in range(2, 12)]
    assert lines[-1] == "and 3 more"


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_a_data_error(content: bytes):
    with contextlib.suppress(DataError):
        assert parse_records(content, "x", "train")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "x"])},
    optional={"content": st.text(max_size=3) | json_values, "tool_calls": json_values, "tool_call_id": st.text()},
)
records = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(messages, max_size=5) | json_values,
        "prompt": st.text(max_size=3),
        "completion": st.text(max_size=3) | json_values,
        "tools": st.lists(st.fixed_dictionaries({"name": st.text()}, optional={"parameters": json_values})),
        "weight": json_values,
    },
)


@given(records)
def test_any_json_object_is_a_record_or_a_data_error(value: dict):
    with contextlib.suppress(DataError):
        assert parse_records(json.dumps(value).encode(), "x", "train")


DAMAGED = {
    "a.jsonl.gz": gzip.compress(f"{GOOD}\n{GOOD}\n".encode()),
    "a.parquet": parquet([{"messages": [USER, ASSISTANT], "tools": [FIND]}, {"messages": [USER, CALLS]}] * 3),
}


@pytest.mark.parametrize("name", DAMAGED)
@settings(max_examples=200)
@given(st.data())
def test_a_damaged_file_is_records_or_a_data_error(tmp_path_factory, name: str, data: st.DataObject):
    content = bytearray(DAMAGED[name])
    places = st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=4)):
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    with contextlib.suppress(DataError):
        assert read_records(str(path))
