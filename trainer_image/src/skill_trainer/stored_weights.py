"""What a safetensors file says of itself, read without believing it. Knows no model and loads no weights."""

from __future__ import annotations

import json
from typing import BinaryIO

from skill_trainer.errors import ModelInvalid

MOST_BYTES = 100_000_000
"""Source: safetensors, format: a header is no larger (the limit of its own readers)."""


def stored_types(file: BinaryIO, name: str) -> frozenset[str]:
    """Returns the types of the tensors in a file that messages call `name`, as its header writes them: `BF16`, `F32`.

    Raises:
        ModelInvalid: where there is no such header.
    """
    size = int.from_bytes(file.read(8), "little")
    if size > MOST_BYTES:
        raise _bad(name, f"it would be {size} bytes long")
    try:
        header = json.loads(file.read(size))
        types = frozenset(entry["dtype"] for tensor, entry in header.items() if tensor != "__metadata__")
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise _bad(name, type(error).__name__) from error
    if not all(isinstance(each, str) and len(each) < 16 for each in types):
        raise _bad(name, "its types are no names")
    return types


def _bad(name: str, why: str) -> ModelInvalid:
    return ModelInvalid(f"{name}: has no header of safetensors ({why}): save the weights again")
