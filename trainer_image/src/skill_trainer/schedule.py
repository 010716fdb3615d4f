"""The learning rate and the order of the data, as pure functions of the step: a resumed run has nothing to restore."""

from __future__ import annotations

import hashlib
import math

import torch

from skill_contract.spec import Optimizer


def learning_rate(step: int, total: int, optimizer: Optimizer) -> float:
    """Returns the learning rate of a step (from 0): linear warm-up, then constant or half a cosine towards 0."""
    highest, warmup = optimizer.learning_rate, warmup_steps(total, optimizer)
    assert highest is not None  # a method's
    if step < warmup:
        return highest * (step + 1) / (warmup + 1)
    if optimizer.schedule == "Constant":
        return highest
    progress = (step - warmup) / max(1, total - warmup)
    return highest * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup_steps(total: int, optimizer: Optimizer) -> int:
    """Returns the steps of the warm-up: never more than half, or a short run would end before it has reached its rate.

    A function of the total and not of the steps done: a resumed run goes up the same slope.
    """
    return min(optimizer.warmup_steps, total // 2)


def generator(seed: int, purpose: str, counter: int) -> torch.Generator:
    """Returns the generator of one purpose and step; on the CPU whatever the device: draws are equal everywhere."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{counter}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def batch_indices(step: int, batch_size: int, num_examples: int, seed: int, purpose: str = "epoch") -> list[int]:
    """Returns which examples a step sees: `batch_size` consecutive ones of an endless row of shuffled epochs."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: torch.randperm(num_examples, generator=generator(seed, purpose, epoch)).tolist()
        for epoch in {position // num_examples for position in positions}
    }
    return [orders[position // num_examples][position % num_examples] for position in positions]
