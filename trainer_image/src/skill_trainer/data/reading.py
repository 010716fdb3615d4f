"""Reads JSON Lines into records. Counts every bad line and drops none: a file is usable as a whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from skill_contract.spec import GraderName
from skill_store.errors import NotFound
from skill_store.objects import read_bytes
from skill_trainer.data.forms import BadRecordError, Problem, read_record
from skill_trainer.data.record import DataError, Kind, Record

SHOWN = 10
"""As many bad records are named; all are counted."""
MAX_BYTES = 1 << 30
"""Of an unpacked file. A few hundred kilobytes can unpack to as much as a machine has memory."""


def read_records(uri: str, kind: Kind = "train", grader: GraderName | None = None) -> list[Record]:
    """Returns the records of a `.jsonl` or `.jsonl.gz` file: a path, `file://` or `s3://`, in the file's order.

    `grader` is the suite's, by which evaluation records without their own are going to be judged.

    Raises:
        DataError: `DataInvalid` with the count of all bad records and the first ten; `DataMissing` where no file is.
        StoreError: where the store cannot be read for another reason.
    """
    if not uri.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(
            "DataInvalid", f"{uri}: the name must end in .jsonl or .jsonl.gz: convert the data to JSON Lines"
        )
    return parse_records(_decompressed(uri, _content(uri)), uri, kind, grader)


def _content(uri: str) -> bytes:
    try:
        return read_bytes(uri)
    except NotFound as error:
        raise DataError("DataMissing", f"{uri}: there is no such file: check the address ({error})") from error


def _decompressed(uri: str, content: bytes) -> bytes:
    if not uri.endswith(".gz"):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as packed:
            unpacked = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("DataInvalid", f"{uri}: is not a whole gzip file ({error}): compress it again") from error
    if len(unpacked) > MAX_BYTES:
        raise DataError("DataInvalid", f"{uri}: unpacks to more than {MAX_BYTES / 1e9:.1f} GB: split it up")
    return unpacked


def parse_records(content: bytes, name: str, kind: Kind, grader: GraderName | None = None) -> list[Record]:
    """Returns the records in the bytes of JSON Lines that messages call `name`; raises DataError as `read_records`."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError("DataInvalid", f"{name}: the file is empty: write one JSON object a line")
    records, bad = [], list[str]()
    for number, line in enumerate(lines, 1):
        try:
            records.append(read_record(_decode(line), kind=kind, line=number, grader=grader))
        except BadRecordError as error:
            bad += [f"{name}, line {number}, {problem.field}: {problem.reason}" for problem in error.problems[:1]]
    bad += [f"{name}, {complaint}" for complaint in _repeated_ids(records)]
    if bad:
        raise DataError("DataInvalid", _summary(name, bad, len(lines)))
    return records


def _decode(line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} is 0x{line[error.start]:02x}"
        raise BadRecordError(Problem("(line)", f"is not UTF-8 ({place}): save the file as UTF-8")) from error
    if not text.strip():
        raise BadRecordError(Problem("(line)", "is empty: remove it"))
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise BadRecordError(
            Problem("(line)", f"is not JSON ({error.msg} at column {error.colno}): one whole object a line")
        ) from error
    except BadRecordError:
        raise
    except ValueError as error:  # Source: Python, sys.set_int_max_str_digits
        raise BadRecordError(Problem("(line)", "has a whole number that is too long to be read: shorten it")) from error
    except RecursionError as error:
        raise BadRecordError(Problem("(line)", "is nested too deeply to be a record")) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise BadRecordError(Problem(repeated[0], "stands twice in the record: keep one"))
    return dict(pairs)


def _repeated_ids(records: list[Record]) -> Iterator[str]:
    first: dict[str, int] = {}
    for record in records:
        if record.id in first:
            yield f"line {record.line}, id: {record.id!r:.60} is line {first[record.id]}'s: give each its own"
        first.setdefault(record.id, record.line)


def _summary(name: str, bad: list[str], lines: int) -> str:
    head = f"{name}: {len(bad)} of {lines} records cannot be used"
    rest = [f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
    text = "\n".join([head, *bad[:SHOWN], *rest])
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair could not be sent on
