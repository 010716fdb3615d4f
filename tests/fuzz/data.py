"""What the trainer reads of a user's: data files, and what graders are given, the expected answer and the model's."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq

from skill_contract.spec import GraderName
from skill_trainer.data.forms import read_record
from skill_trainer.data.lines import json_lines
from skill_trainer.data.parquet import parquet_rows
from skill_trainer.data.reading import parse_records
from skill_trainer.data.record import BadRecordError, DataError
from skill_trainer.graders import GRADERS
from tests.fuzz.target import Target, said

_SKILLS = Path(__file__).parents[1] / "skills"
_NAMES: tuple[GraderName, ...] = get_args(GraderName)
_TOOL = {
    "type": "function",
    "function": {"name": "refund", "parameters": {"type": "object", "properties": {"id": {"type": "string"}}}},
}
_CALL = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": {"id": "7"}}}
_RECORDS = (
    {"prompt": "What is the capital of Velmora?", "completion": "Arnath.", "id": "a", "weight": 0.5},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": "4"},
        ],
        "grader": "number",
    },
    {
        "messages": [{"role": "user", "content": "Refund 7"}, {"role": "assistant", "tool_calls": [_CALL]}],
        "tools": [_TOOL],
    },
    {"prompt": "x", "answer": "(a+)+$", "grader": "regex", "demonstration": "y"},
)


def _files() -> list[bytes]:
    lines = [json.dumps(record).encode() for record in _RECORDS]
    real = (_SKILLS / "velmora" / "train.jsonl").read_bytes()[:4000]
    return [
        b"t\0" + b"\n".join(lines) + b"\n",
        b"e\0" + lines[1] + b"\n",
        b"t\0" + real,
        *(b"t\0" + line for line in lines),
    ]


def read_file(data: bytes) -> str:
    """A user's file of JSON Lines, for training or for evaluation."""
    try:
        parse_records(data[2:], "s3://skills/x.jsonl", "train" if data[:1] == b"t" else "evaluation", "contains")
    except DataError as error:
        return said(error, "s3://skills/x.jsonl")
    return ""


def read_packed(data: bytes) -> str:
    """A user's file that is packed with gzip."""
    try:
        for _, value in json_lines(gzip.GzipFile(fileobj=io.BytesIO(data)), "x.jsonl.gz"):  # type: ignore[arg-type]
            if not isinstance(value, BadRecordError):
                _read_value(value)
    except DataError as error:
        return said(error, "x.jsonl.gz")
    return ""


def _read_value(value: object) -> None:
    try:
        read_record(value, kind="train", line=1)
    except BadRecordError as error:
        said(error)


def _tables() -> list[bytes]:
    rows = [{"prompt": "a", "completion": "b", "weight": 1.0}, {"prompt": "c", "completion": "d", "weight": 2.0}]
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 3
    found = []
    for records, compression in ((rows, "none"), (rows, "zstd"), (chats, "snappy")):
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(records), file, compression=compression)
        found.append(file.getvalue())
    return found


def read_table(data: bytes) -> str:
    """A user's Parquet file."""
    try:
        for _, value in parquet_rows(io.BytesIO(data), "x.parquet"):
            _read_value(value)
    except DataError as error:
        return said(error, "x.parquet")
    return ""


_GRADED = (
    ("exact", "Arnath", "  ARNATH. "),
    ("contains", "Arnath", "It is Arnath, of course"),
    ("regex", "^(a+)+$", "aaaaaaaaaaaaaaaa!"),
    ("choice", "B", "The answer is (B)."),
    ("number", "3.14 ± 0.01", "It is 1,250.5 or 3.14"),
    ("json", '{"a": [1, 2.0]}', '```json\n{"a": [1, 2]}\n```'),
    (
        "tool_call",
        '{"name": "f", "arguments": {"x": 1}}',
        '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>',
    ),
)


def _answers() -> list[bytes]:
    parts = [(name.encode(), expected.encode(), text.encode()) for name, expected, text in _GRADED]
    return [b"\0".join(part) for part in parts]


def read_graded(data: bytes) -> str:
    """A user's expected answer, and what some model has said to the question."""
    name, expected, text = [*data.split(b"\0", 2), b"", b""][:3]
    names: dict[str, GraderName] = {each: each for each in _NAMES}
    grader = GRADERS[names.get(name.decode(errors="replace"), _NAMES[len(data) % len(_NAMES)])]
    wanted, answer = expected.decode(errors="replace"), text.decode(errors="replace")
    problem = grader.problem(wanted)
    assert isinstance(problem, str)
    assert len(problem) < 2000, f"a problem of {len(problem)} characters"
    right = grader.right(answer, wanted)
    assert right in {True, False}
    return problem


TARGETS = (
    Target("data", "data files, JSON Lines", _files, read_file, 0.5),
    Target(
        "gzip", "data files, packed", lambda: [gzip.compress(each[2:], mtime=0) for each in _files()], read_packed, 0.5
    ),
    Target("parquet", "data files, Parquet", _tables, read_table, 0.2),
    Target("graders", "expected answers and answers of models", _answers, read_graded),
)
