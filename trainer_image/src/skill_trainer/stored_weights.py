"""What safetensors files say of themselves, read without believing it. Knows no model and loads no weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from skill_trainer.errors import ModelInvalid

MOST_BYTES = 100_000_000
"""Source: safetensors, format: a header is no larger (the limit of its own readers)."""


def stored_dtype(folder: Path) -> torch.dtype:
    """Returns the floating-point type of the weights in a folder, from the header of its first safetensors file."""
    first = min(folder.glob("*.safetensors"))
    with first.open("rb") as file:
        names = stored_types(file, str(first))
    types = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    known = [types[name] for name in ("F32", "BF16", "F16") if name in names]
    if not known:
        raise ModelInvalid(f"{folder}: weights are stored as {', '.join(sorted(names))}: convert them to BF16 or F32")
    return known[0]


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


def require_whole(folder: Path, kind: str, loaded: Mapping[str, Collection[Any]]) -> None:
    """Missing weights would be random numbers, and unknown ones would be missing from the published version."""
    # Of another shape: (name, shape in the file, shape in the model).
    missing = sorted([*loaded["missing_keys"], *(str(each[0]) for each in loaded["mismatched_keys"])])
    if missing:
        raise ModelInvalid(
            f"{folder}: lacks {_some(missing)}, or has it in another shape than config.json says: save the model whole"
        )
    if unknown := sorted(loaded["unexpected_keys"]):
        raise ModelInvalid(
            f"{folder}: has {_some(unknown)}, which {kind} does not know and would lose: remove it first"
        )


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more weights"


def _bad(name: str, why: str) -> ModelInvalid:
    return ModelInvalid(f"{name}: has no header of safetensors ({why}): save the weights again")
