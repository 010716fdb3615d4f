"""Weights in the processor's own order while answers are generated.

A decode step multiplies every weight with a handful of rows. On a CPU the general product, made for many rows, reads
the weights two to three times as slowly as memory gives them. oneDNN's product on weights that lie in blocks does not,
and the blocks are made once for all tokens of an answer. The products are the same but for roundings.

Source: oneDNN, "blocked memory formats"; PyTorch, `torch.ops.mkldnn`, as `torch.compile` uses it. Measured by
`benchmarks/trainer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 8
"""Rows that the blocks are laid out for; measured to be as good for 2 to 128."""


@contextmanager
def blocked_weights(network: nn.Module) -> Iterator[None]:
    """Keeps a second copy of the weights of all linear layers, in blocks, and uses it; without gradients.

    Does nothing on other devices, for weights that are spread over processes, and inside another such context.
    """
    layers = [module for module in network.modules() if _can_be_blocked(module)]
    for layer in layers:
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)  # noqa: SLF001 - has no public name
        # Each layer asks its own attribute first; the class's method is back as soon as that is gone.
        layer.forward = partial(_product, weight, layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _can_be_blocked(module: Any) -> bool:
    return (
        type(module) is nn.Linear
        and type(module.weight) is nn.Parameter  # a shard is of another class
        and (module.weight.device.type, module.weight.dtype) == ("cpu", torch.float32)
        and torch.backends.mkldnn.is_available()
        and "forward" not in vars(module)
    )


def _product(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")  # noqa: SLF001
