"""Products of rows and weights on a CPU, forward and back, by the library that is faster at them.

PyTorch multiplies fp32 matrices by MKL, which on AMD's processors stays far below the rate of large square products
where a matrix is a few hundred wide. oneDNN, which PyTorch brings with it, comes near to that rate for rows times
weights, either way round. A weight's gradient, which is summed over the rows, MKL computes as fast.

Source: PyTorch, `torch.ops.mkldnn`, as `torch.compile` uses it. Measured by `benchmarks/trainer`.

Shape suffixes: R rows, K what is summed over, N columns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def product(rows_RK: Tensor, matrix_KN: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Returns the product, plus a bias. The rows may have any number of dimensions."""
    if _is_faster(rows_RK, matrix_KN):
        linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - has no public name
        return linear(rows_RK, matrix_KN.T, bias_N, "none", [], "")
    plain = rows_RK @ matrix_KN
    return plain if bias_N is None else plain + bias_N


def _is_faster(rows: Tensor, matrix: Tensor) -> bool:
    """Returns whether oneDNN's product is: it would copy rows that are columns of another, and has no gradient."""
    is_differentiable = torch.is_grad_enabled() and (rows.requires_grad or matrix.requires_grad)
    fits = all(each.device.type == "cpu" and each.dtype == torch.float32 for each in (rows, matrix))
    return fits and rows.is_contiguous() and not is_differentiable and torch.backends.mkldnn.is_available()


class Linear(nn.Linear):
    """A linear layer that multiplies by `product`."""

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the rows times the weight, plus the bias."""
        if rows.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(rows)
        return _Linear.apply(rows, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_RK: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows_RK if ctx.needs_input_grad[1] else None, weight_NK)
        return product(rows_RK, weight_NK.T, bias_N)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        rows_RK, weight_NK = ctx.saved_tensors
        needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
        upstream_RN = upstream[0].flatten(0, -2)
        return (
            product(upstream[0], weight_NK) if needs_rows else None,
            upstream_RN.T @ rows_RK.flatten(0, -2) if needs_weight else None,
            upstream_RN.sum(0) if needs_bias else None,
        )


def use_in(network: nn.Module) -> None:
    """Makes those linear layers of a network whose weights are on a CPU multiply so, for good."""
    for module in network.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu":
            module.__class__ = Linear
