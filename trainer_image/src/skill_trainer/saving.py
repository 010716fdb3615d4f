"""A trained network as a plain Hugging Face directory: its own weights, and every other file as the parent has it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skill_contract.adapters import OLDER, OWN
from skill_trainer.stored_weights import stored_dtype

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
LEFT_BEHIND = (".skill", OWN, OLDER)
SHARD_SIZE = "2GB"
"""Small enough that a version is moved by several connections at once."""


def save(network: Any, folder: Path, parent: Path) -> None:
    """Writes the directory, with weights of the type that `parent` is stored in.

    The parent's `.skill` and its `adapter`, which belongs to the parent's own parent, are left behind.
    """
    network.save_pretrained(folder, state_dict=_on_host(network, stored_dtype(parent)), max_shard_size=SHARD_SIZE)
    for path in folder.iterdir():
        if not _holds_weights(path):  # configurations of the library's own making
            path.unlink()
    for path in sorted(parent.rglob("*")):
        name = path.relative_to(parent)
        if path.is_file() and name.parts[0] not in LEFT_BEHIND and not _holds_weights(path):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / name)


def _on_host(network: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the network's tensors in the host's memory, converted one by one: a GPU need not hold two models.

    What is tied stays one tensor.
    """
    converted: dict[Tensor, Tensor] = {}
    state = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if tensor not in converted:
            converted[tensor] = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None)
        state[name] = converted[tensor]
    return state


def _holds_weights(path: Path) -> bool:
    return any(path.match(pattern) for pattern in WEIGHT_FILES)
