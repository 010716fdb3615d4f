"""From a file to its records. Counts every bad one and drops none: a file is usable as a whole or not at all."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

from skill_contract.spec import GraderName
from skill_store.errors import NotFound
from skill_store.objects import opened
from skill_trainer.data.forms import read_record
from skill_trainer.data.lines import json_lines
from skill_trainer.data.parquet import parquet_rows
from skill_trainer.data.record import BadRecordError, DataError, Kind, Problem, Record

SHOWN = 10
"""As many bad records are named; all are counted."""
ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


def read_records(uri: str, kind: Kind = "train", grader: GraderName | None = None) -> list[Record]:
    """Returns the records of a `.jsonl`, `.jsonl.gz` or `.parquet` file: a path, `file://` or `s3://`, in its order.

    The file passes through memory line by line or a few rows at a time; what stays is the records.

    Args:
        uri: of the file.
        kind: what every record must have.
        grader: the suite's, by which evaluation records without their own are going to be judged.

    Raises:
        DataError: `DataInvalid` with the count of all bad records and the first ten; `DataMissing` where no file is.
        StoreError: where the store cannot be read for another reason.
    """
    word = "row" if uri.endswith(".parquet") else "line"
    return _records(file_values(uri), uri, kind, grader, word)


def file_values(uri: str) -> Iterator[tuple[int, Any]]:
    """Yields the number of each line or row of a file and its value, or the BadRecordError that says why it has none.

    Raises:
        DataError, StoreError: as `read_records`, where no value of the file can be had.
    """
    if not uri.endswith(ENDINGS):
        raise DataError(
            "DataInvalid", f"{uri}: the name must end in {', '.join(ENDINGS)}: convert the data to one of them"
        )
    try:
        with opened(uri) as file:
            yield from _values(file, uri)
    except NotFound as error:
        raise DataError("DataMissing", f"{uri}: there is no such file: check the address ({error})") from error


def _values(file: BinaryIO, uri: str) -> Iterator[tuple[int, Any]]:
    if uri.endswith(".parquet"):
        yield from parquet_rows(file, uri)
    elif uri.endswith(".gz"):
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield from json_lines(cast("BinaryIO", unpacked), uri)
    else:
        yield from json_lines(file, uri)


def parse_records(content: bytes, name: str, kind: Kind, grader: GraderName | None = None) -> list[Record]:
    """Returns the records in the bytes of JSON Lines that messages call `name`; raises DataError as `read_records`."""
    return _records(json_lines(io.BytesIO(content), name), name, kind, grader, "line")


def _records(
    values: Iterable[tuple[int, Any]], name: str, kind: Kind, grader: GraderName | None, word: str
) -> list[Record]:
    records: list[Record] = []
    bad: list[str] = []
    first_with: dict[str, int] = {}
    total, wrong = 0, 0
    for total, value in values:
        try:
            if isinstance(value, BadRecordError):
                raise value
            record = read_record(value, kind=kind, line=total, grader=grader)
            _require_new_id(record, first_with, word)
            records.append(record)
        except BadRecordError as error:
            wrong += 1
            problem = error.problems[0]
            if len(bad) < SHOWN:
                bad.append(f"{name}, {word} {total}, {problem.field}: {problem.reason}")
    if not total:
        raise DataError("DataInvalid", f"{name}: the file is empty: write at least one record")
    if wrong:
        raise DataError("DataInvalid", _summary(name, bad, wrong, total))
    return records


def _require_new_id(record: Record, first_with: dict[str, int], word: str) -> None:
    first = first_with.setdefault(record.id, record.line)
    if first != record.line:
        raise BadRecordError(Problem("id", f"{record.id!r:.60} is {word} {first}'s: give each its own"))


def _summary(name: str, bad: list[str], wrong: int, total: int) -> str:
    head = f"{name}: {wrong} of {total} records cannot be used"
    rest = [f"and {wrong - SHOWN} more"] if wrong > SHOWN else []
    text = "\n".join([head, *bad, *rest])
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair could not be sent on
