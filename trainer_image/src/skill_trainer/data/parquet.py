"""Parquet: from a file to the same values that JSON Lines give, some rows at a time.

Columns have one type for all rows, so whoever writes nested data (Hugging Face's datasets, pandas) fills what a row
does not have with nulls. Here they are taken out again: in Parquet, null means that a field is not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, BinaryIO

from skill_trainer.data.forms import FIELDS
from skill_trainer.data.lines import MAX_BYTES
from skill_trainer.data.record import DataError
from skill_trainer.data.words import unknown_field

BATCH_ROWS = 128
_BUFFER_BYTES = 1 << 20


def parquet_rows(file: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Yields the number of each row, from 1, and its value.

    Raises:
        DataError: where it is no whole Parquet file, has columns that are no fields, or is too large.
    """
    import pyarrow as pa  # noqa: PLC0415 - a fifth of a second, for those who need it
    import pyarrow.parquet as pq  # noqa: PLC0415

    number, total = 0, 0
    try:
        # Buffered: otherwise whole column chunks, of which a file may have only one, are held.
        table = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        _require_columns(table.schema_arrow.names, name)
        for batch in table.iter_batches(BATCH_ROWS, use_threads=False):
            total += batch.nbytes
            if total > MAX_BYTES:
                raise DataError("DataInvalid", f"{name}: unpacks to more than {MAX_BYTES / 1e9:.1f} GB: split it up")
            for value in batch.to_pylist(maps_as_pydicts="strict"):
                number += 1
                yield number, _without_nulls(value)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        place = f" after row {number}" if number else ""
        raise DataError(
            "DataInvalid", f"{name}: cannot be read as Parquet{place} ({reason}): write it again"
        ) from error


def _require_columns(columns: Collection[str], name: str) -> None:
    unknown = [column for column in columns if column not in FIELDS]
    if unknown:
        raise DataError("DataInvalid", f"{name}: column {unknown[0]!r} {unknown_field(unknown[0], FIELDS)}")
    if not {"prompt", "messages"} & set(columns):
        raise DataError(
            "DataInvalid", f"{name}: has neither a column `prompt` nor `messages` (it has {', '.join(columns)})"
        )


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value
