"""Weights in the form in which a decode step reads them fastest, while answers are generated.

A decode step multiplies every weight with a handful of rows, so it takes as long as reading the weights does. On a CPU
the general product, made for many rows, reads them two to three times as slowly as memory gives them; oneDNN's product
on weights that lie in blocks does not. On a GPU autocast would read every fp32 weight and write it as bf16 again for
each token; a bf16 copy is read once, and is half as long. Either is made once for all tokens of an answer, and the
products are the same: but for roundings on a CPU, exactly on a GPU. The output layer's are fp32 there, as in the loss.

Source: oneDNN, "blocked memory formats"; PyTorch, `torch.ops.mkldnn`, as `torch.compile` uses it; PyTorch, "Automatic
Mixed Precision". Measured by `benchmarks/trainer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from skill_trainer.divergence import Head
from skill_trainer.products import Linear

ROWS = 8
"""Rows that the blocks are laid out for; measured to be as good for 2 to 128."""


@contextmanager
def decoding_weights(network: nn.Module, head: nn.Module | None = None) -> Iterator[None]:
    """Keeps a second copy of the weights of all linear layers, and computes with it; without gradients.

    Does nothing for weights that are spread over processes or are not fp32, and inside another such context.

    Args:
        head: the network's output layer.
    """
    plain = (module for module in network.modules() if _is_plain(module))
    layers = [(module, product) for module in plain if (product := _product(module, is_head=module is head))]
    for layer, product in layers:
        # Each layer asks its own attribute first; the class's method is back as soon as that is gone.
        layer.forward = product
    try:
        yield
    finally:
        for layer, _ in layers:
            del layer.forward


def logits(head: Any, rows_AD: Tensor) -> Tensor:
    """Returns the logits of an output layer in fp32, as the loss computes them; from its copy where there is one."""
    copied = vars(head).get("forward")
    return copied(rows_AD) if copied else Head(head.weight, head.bias).logits(rows_AD)


def _is_plain(module: Any) -> bool:
    return (
        type(module) in (nn.Linear, Linear)
        and type(module.weight) is nn.Parameter  # a shard is of another class
        and module.weight.dtype == torch.float32
        and "forward" not in vars(module)
    )


def _product(layer: Any, *, is_head: bool) -> Callable[[Tensor], Tensor] | None:
    """Returns what takes the place of the layer's own product; None where nothing is faster."""
    weight = layer.weight.detach()
    if weight.device.type == "cuda":
        if is_head:
            return Head(weight.to(torch.bfloat16), layer.bias).logits
        bias = layer.bias.to(torch.bfloat16) if layer.bias is not None else None
        return partial(_linear, weight.to(torch.bfloat16), bias)
    if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
        blocks = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)  # noqa: SLF001 - has no public name
        return partial(_blocked, blocks, layer.bias)
    return None


def _linear(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    return nn.functional.linear(rows.to(weight.dtype), weight, bias)


def _blocked(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")  # noqa: SLF001
