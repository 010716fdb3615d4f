"""How far the weights that are published lie from the parent's: whether anything is left of training once rounded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from skill_trainer.model import LanguageModel

HARDLY = 0.01
"""Share of other numbers under which most of what was learned has been rounded away."""


@torch.no_grad()
def moved_weights(model: LanguageModel, parent: Path) -> dict[str, float]:
    """Returns two figures of a model in the parent's type, over all weights that `parent` has a file of.

    `moved` is the share of other numbers than the parent's; `distance` the norm of the change as a share of the
    parent's norm. A step smaller than half of the distance between two numbers of the type is lost: with bfloat16,
    about a five-hundredth of the weight.
    """
    ours = model.network.state_dict()
    others = total = 0
    change = norm = 0.0
    for path in sorted(parent.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys() & ours.keys():
                before = file.get_tensor(name).to(ours[name])
                others, total = others + int((ours[name] != before).sum()), total + before.numel()
                change += torch.linalg.vector_norm(ours[name] - before, dtype=torch.float64).item() ** 2
                norm += torch.linalg.vector_norm(before, dtype=torch.float64).item() ** 2
    return {"moved": others / total, "distance": math.sqrt(change / norm)} if total else {}


def hardly_moved(moved: Mapping[str, float]) -> Iterator[str]:
    """Yields the warning, if there is one to give."""
    share = moved.get("moved", 1.0)
    if share < HARDLY:
        yield (
            f"only {share:.2%} of the weights are other numbers than the parent's, as they are published: smaller "
            "changes were rounded away: raise method.optimizer.learningRate, or train for more steps"
        )
