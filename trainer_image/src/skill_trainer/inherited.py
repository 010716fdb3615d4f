"""Adapters for older weights: what the parent's adapters and this version's make together.

An engine that holds the weights of long ago can so take every version since: W + B1 A1 + B2 A2 is one adapter, whose
rank is the sum of both. It differs from the version by the rounding of the parent's weights between them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from skill_contract.adapters import OLDER, OWN
from skill_contract.manifest import Manifest

MOST_RANK = 256
"""Beyond it none is made: engines have a limit of their own, which is rarely above."""
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def has_adapters(manifest: Manifest) -> bool:
    """Returns whether a version came with adapters that this program has written."""
    lora = (manifest.method.get("adaptation") or {}).get("lora") or {}
    return bool(lora.get("publish") == "Adapter")


def inherit(parent: Path, folder: Path) -> None:
    """Writes into `folder`, which has an adapter of `parent`, one for each version of which `parent` had one."""
    for place in (parent / OWN, *sorted((parent / OLDER).glob("*"))):
        if not (place / _CONFIG).is_file():
            continue
        before, after = _config(place), _config(folder / OWN)
        rank = before["r"] + after["r"]
        if rank <= MOST_RANK:
            base = str(before["base_model_name_or_path"])
            _write(
                folder / OLDER / base, _sum(_factors(place, before), _factors(folder / OWN, after)), before, after, rank
            )


def _config(place: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((place / _CONFIG).read_text())
    return config


def _factors(place: Path, config: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns A and B of each layer, by its name, B with the adapter's own factor in it."""
    tensors = load_file(place / _WEIGHTS)
    names = sorted(name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight"))
    scale = config["lora_alpha"] / config["r"]
    return {name: (tensors[f"{name}.lora_A.weight"], scale * tensors[f"{name}.lora_B.weight"]) for name in names}


def _sum(first: dict[str, tuple[Tensor, Tensor]], second: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Returns the tensors of an adapter that does both; a layer of only one is filled up with zeros."""
    ranks = [next(iter(factors.values()))[0].shape[0] for factors in (first, second)]
    tensors = {}
    for name in sorted(first.keys() | second.keys()):
        (a1, b1), (a2, b2) = (
            factors.get(name) or _nothing(other[name], rank)
            for factors, other, rank in zip((first, second), (second, first), ranks, strict=True)
        )
        tensors[f"{name}.lora_A.weight"] = torch.cat([a1, a2]).contiguous()
        tensors[f"{name}.lora_B.weight"] = torch.cat([b1, b2], dim=1).contiguous()
    return tensors


def _nothing(like: tuple[Tensor, Tensor], rank: int) -> tuple[Tensor, Tensor]:
    a, b = like
    return a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)


def _write(
    place: Path, tensors: dict[str, Tensor], before: Mapping[str, Any], after: Mapping[str, Any], rank: int
) -> None:
    place.mkdir(parents=True)
    save_file(tensors, place / _WEIGHTS, metadata={"format": "pt"})
    modules = sorted({*before["target_modules"], *after["target_modules"]})
    base = before["base_model_name_or_path"]
    config = {**after, "r": rank, "lora_alpha": rank, "target_modules": modules, "base_model_name_or_path": base}
    (place / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))
