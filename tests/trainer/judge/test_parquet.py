"""Parquet gives the same records as JSON Lines: nested columns, nulls where a row has nothing, JSON in text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skill_trainer.data import DataError, Record, data_digest, parse_records, read_records
from skill_trainer.data.parquet import BATCH_ROWS


def tool(name: str, **properties: dict) -> dict:
    parameters = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": parameters}}


FIND, ADD = tool("find", city={"type": "string"}), tool("add", one={"type": "integer"}, two={"type": "integer"})
USER, ASSISTANT = {"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Nova."}


def call(name: str, **arguments: object) -> dict:
    return {"id": f"call-{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


ROWS = [
    {"messages": [USER, {"role": "assistant", "tool_calls": [call("find", city="Nova")]}], "tools": [FIND]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            USER,
            {"role": "assistant", "content": "I add.", "tool_calls": [call("add", one=1, two=2)]},
            {"role": "tool", "content": "3", "tool_call_id": "call-add"},
            ASSISTANT,
        ],
        "tools": [ADD, FIND],
        "weight": 2,
    },
    {"messages": [USER, ASSISTANT], "id": "plain", "answer": "Nova", "grader": "contains"},
]
"""What each row has, no other one has whole: a column's type is the union of all."""


def written(rows: list[dict], path: Path) -> list[Record]:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return read_records(str(path))


def from_lines(rows: list[dict]) -> list[Record]:
    return parse_records("\n".join(json.dumps(row) for row in rows).encode(), "x.jsonl", "train")


def columns_of(rows: list[dict]) -> list[dict]:
    """Rows with every column: `from_pylist` takes the names from the first."""
    names = {name: None for row in rows for name in row}
    return [{**names, **row} for row in rows]


def test_nested_columns_give_the_records_of_json_lines(tmp_path):
    found = written(columns_of(ROWS), tmp_path / "a.parquet")
    assert found == from_lines(ROWS)
    assert data_digest(found) == data_digest(from_lines(ROWS)), "the same update, however its data are stored"
    assert found[0].tools == (FIND,), "nothing of the other tools' parameters is left"
    assert found[1].messages[2]["tool_calls"] == [call("add", one=1, two=2)]


def as_text(value: object) -> str:
    return json.dumps(value)


@pytest.mark.parametrize(
    "stored",
    [
        lambda row: {**row, "tools": as_text(row["tools"])} if "tools" in row else row,
        lambda row: {**row, "tools": [as_text(each) for each in row.get("tools", [])]},
        lambda row: {**row, "messages": as_text(row["messages"])},
        lambda row: {**row, "messages": [as_text(each) for each in row["messages"]]},  # datasets' feature Json
    ],
    ids=["tools", "each tool", "messages", "each message"],
)
def test_json_in_text_columns_is_understood(tmp_path, stored):
    assert written(columns_of([stored(row) for row in ROWS]), tmp_path / "a.parquet") == from_lines(ROWS)


def test_the_arrow_type_for_json_is_understood(tmp_path):
    kind = pa.list_(pa.json_())
    values = [[as_text(each) for each in row["messages"]] for row in ROWS]
    storage = pa.array(values, pa.list_(pa.string()))
    pq.write_table(pa.table({"messages": storage.cast(kind)}), tmp_path / "a.parquet")
    found = read_records(str(tmp_path / "a.parquet"))
    assert [record.messages for record in found] == [record.messages for record in from_lines(ROWS)]


@pytest.mark.parametrize("compression", ["NONE", "SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4"])
def test_order_and_place_survive_row_groups_and_compression(tmp_path, compression):
    rows = [{"prompt": f"Question {n}?", "completion": f"{n}"} for n in range(2 * BATCH_ROWS + 7)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=50, compression=compression)
    found = read_records(f"file://{tmp_path}/a.parquet")
    assert found == from_lines(rows)
    assert found[-1].line == len(rows)


@pytest.mark.store
def test_a_file_in_s3_is_read_like_a_local_one(s3, tmp_path):
    pq.write_table(pa.Table.from_pylist(columns_of(ROWS)), tmp_path / "a.parquet")
    s3.write("data/a.parquet", (tmp_path / "a.parquet").read_bytes())
    s3.write("data/a.jsonl.gz", gzip.compress("\n".join(json.dumps(row) for row in ROWS).encode()))
    assert read_records(f"{s3.uri}/data/a.parquet") == read_records(f"{s3.uri}/data/a.jsonl.gz") == from_lines(ROWS)
    with pytest.raises(DataError, match="there is no such file") as caught:
        read_records(f"{s3.uri}/data/b.parquet")
    assert caught.value.reason == "DataMissing"
