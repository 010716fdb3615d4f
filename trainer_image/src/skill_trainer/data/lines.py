"""JSON Lines: from the bytes of a file to JSON values, one line at a time. Holds no more than one line."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from skill_trainer.data.json_text import decode_json
from skill_trainer.data.record import BadRecordError, DataError, Problem

MAX_BYTES = 1 << 30
"""Of an unpacked file. A few hundred kilobytes can unpack to as much as a machine has memory."""
MAX_LINE_BYTES = 16 << 20

_UTF8_MARK = b"\xef\xbb\xbf"
_SAVE = "save it as UTF-8"
_OTHER_FORMATS = {
    b"PAR1": "is a Parquet file: give it a name that ends in .parquet",
    b"\x1f\x8b": "is packed with gzip: give it a name that ends in .jsonl.gz",
    b"\x28\xb5\x2f\xfd": "is packed with zstd: unpack it, or pack it with gzip",
    b"PK\x03\x04": "is a ZIP archive or a spreadsheet: export it as JSON Lines",
    b"\xff\xfe": f"is UTF-16 text: {_SAVE}",
    b"\xfe\xff": f"is UTF-16 text: {_SAVE}",
    b"[": "begins with a list: write its objects one a line, without brackets and commas (jq -c '.[]')",
}


def json_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Yields the number of each line, from 1, and its JSON value, or the BadRecordError that says why it has none.

    Raises:
        DataError: where the file as a whole is something else, is too large, or ends early.
    """
    total = 0
    for number, (line, size) in enumerate(_lines(file, name), 1):
        total += size
        if total > MAX_BYTES:
            raise DataError("DataInvalid", f"{name}: unpacks to more than {MAX_BYTES / 1e9:.1f} GB: split it up")
        if number == 1:
            _require_lines_of_json(line, name)
            line = line.removeprefix(_UTF8_MARK)  # noqa: PLW2901
        try:
            yield number, _decoded(line, size)
        except BadRecordError as error:
            yield number, error


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[bytes, int]]:
    """Yields each line without its end, of a huge one only the beginning, and how many bytes it has in all."""
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            size = len(line)
            rest = line
            while size > MAX_LINE_BYTES and not rest.endswith(b"\n") and size <= MAX_BYTES:
                rest = file.readline(MAX_LINE_BYTES)
                size += len(rest)
                if not rest:
                    break
            yield line.removesuffix(b"\n"), size
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("DataInvalid", f"{name}: is not a whole gzip file ({error}): compress it again") from error


def _require_lines_of_json(first: bytes, name: str) -> None:
    for beginning, reason in _OTHER_FORMATS.items():
        if first.removeprefix(_UTF8_MARK).lstrip().startswith(beginning):
            raise DataError("DataInvalid", f"{name}: {reason}")
    if first.removeprefix(_UTF8_MARK).strip() == b"{":
        way_out = "write each record on one line (jq -c .)"
        raise DataError("DataInvalid", f"{name}: has an object that goes over several lines: {way_out}")


def _decoded(line: bytes, size: int) -> Any:
    if size > MAX_LINE_BYTES + 1:
        reason = f"is longer than {MAX_LINE_BYTES >> 20} MiB ({size / (1 << 20):.1f}): no prompt is, so split it up"
        raise BadRecordError(Problem("(line)", reason))
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} is 0x{line[error.start]:02x}"
        raise BadRecordError(Problem("(line)", f"is not UTF-8 ({place}): save the file as UTF-8")) from error
    if not text.strip():
        raise BadRecordError(Problem("(line)", "is empty: remove it"))
    if "\0" in text:
        raise BadRecordError(Problem("(line)", "has zero bytes, as UTF-16 has: save the file as UTF-8"))
    return decode_json(text)
