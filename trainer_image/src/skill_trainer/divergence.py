"""How far the student's distribution is from the teacher's: over the whole vocabulary, a few rows of logits at a time.

Shape suffixes: R rows (the tokens of all answers of a batch that carry loss, one after the other), D model width, V
vocabulary. `s` and `t` are log-probabilities of student and teacher, p_s and p_t their exponentials.

The loss of a batch is the mean over the tokens of a sequence, then the weighted mean over its sequences. Each row gets
that share as its weight beforehand, so that the sum is exact however the batch is cut into parts.

Between the hidden states and the loss lie only a product, a softmax and a divergence, whose gradient is known in closed
form. So both are computed here for a few rows at a time, forward and backward at once, and autograd sees one operation.
Source: gradients in the docstrings, checked by finite differences; sums over V as in arXiv 2601.19897, appendix A.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skill_contract.spec import Divergence
from skill_trainer.products import product

CHUNK_ROWS = 256
"""Rows whose logits exist at the same time: 50 MB each for V = 49 k, 156 MB for V = 152 k, in fp32."""

TILE_ROWS = {"cpu": 4}
"""Rows that are measured at the same time; on other devices all of a chunk."""

TOP_SHARE = 0.01
"""Of a batch's rows, rounded up: those with the largest share of the loss."""

Measure = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(s_RV, target) -> (loss_R, d loss / d student logits, as if the temperature were 1)."""

Target = Callable[[slice], Tensor]
"""From a range of rows to what the student is compared with there: t_RV, or token ids for the cross-entropy."""


def forward_kl(s_RV: Tensor, t_RV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) = sum p_t (t - s). Gradient: p_s - p_t."""
    p_t = t_RV.exp()
    loss_R = (p_t * (t_RV - s_RV)).sum(-1)
    return loss_R, s_RV.exp().sub_(p_t)


def reverse_kl(s_RV: Tensor, t_RV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(student || teacher) = sum p_s (s - t). Gradient: p_s ((s - t) - KL)."""
    p_s, ratio = s_RV.exp(), s_RV - t_RV
    loss_R = (p_s * ratio).sum(-1)
    return loss_R, ratio.sub_(loss_R[:, None]).mul_(p_s)


def jsd(s_RV: Tensor, t_RV: Tensor) -> tuple[Tensor, Tensor]:
    """(KL(teacher || m) + KL(student || m)) / 2, m the mean of both. Gradient: p_s ((s - m) - KL(student || m)) / 2."""
    p_s, p_t = s_RV.exp(), t_RV.exp()
    m_RV = torch.logaddexp(s_RV, t_RV) - math.log(2)
    student_R = (p_s * (s_RV - m_RV)).sum(-1)
    teacher_R = (p_t * (t_RV - m_RV)).sum(-1)
    return (student_R + teacher_R) / 2, p_s * (s_RV - m_RV - student_R[:, None]) / 2


def cross_entropy(s_RV: Tensor, token_R: Tensor) -> tuple[Tensor, Tensor]:
    """-s[token]: the SFT baseline. Gradient: p_s - onehot(token)."""
    row_R = torch.arange(len(token_R), device=token_R.device)
    loss_R, gradient = -s_RV[row_R, token_R], s_RV.exp()
    gradient[row_R, token_R] -= 1
    return loss_R, gradient


MEASURES: dict[Divergence, Measure] = {
    Divergence.FORWARD_KL: forward_kl,
    Divergence.REVERSE_KL: reverse_kl,
    Divergence.JSD: jsd,
}


@dataclass(frozen=True, slots=True)
class Head:
    """The last layer of a model: from hidden states to logits."""

    weight_VD: Tensor
    bias_V: Tensor | None = None

    def for_rows(self, hidden_RD: Tensor) -> Head:
        """Returns the head in the type of its product with these rows: converted once, not once for each chunk."""
        return Head(self.weight_VD.to(_product_dtype(hidden_RD)), self.bias_V)

    def logits(self, hidden_RD: Tensor) -> Tensor:
        """Returns the logits [R, V] in fp32 (fp64 for a fp64 head)."""
        dtype = _product_dtype(hidden_RD)
        logits_RV = _wide_product(hidden_RD.to(dtype), self.weight_VD.to(dtype).T)
        if self.bias_V is not None:
            logits_RV = logits_RV + self.bias_V
        return logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))

    def log_probs(self, hidden_RD: Tensor, temperature: float) -> Tensor:
        """Returns log softmax(logits / temperature) [R, V], as wide as the logits."""
        logits_RV = self.logits(hidden_RD)
        return torch.log_softmax(logits_RV if temperature == 1 else logits_RV / temperature, dim=-1)


def token_weights(lengths: Sequence[int], *, skip: int, weights: Sequence[float], total: float) -> list[float]:
    """Returns the weight of each row of the loss: answers one after the other, without their skipped tokens.

    An answer of L tokens has L - skip rows, each with weight/(L - skip)/total; one that is not longer than `skip` none.

    Args:
        lengths: tokens of each answer, the end-of-turn token included. Masks come from these, never from token ids.
        weights: weight of each sequence's loss.
        total: sum of the weights over the global batch, not only of these sequences.
    """
    counts = [max(0, length - skip) for length in lengths]
    return [weight / count / total for count, weight in zip(counts, weights, strict=True) for _ in range(count)]


def num_top(num_rows: int) -> int:
    """Returns how many rows the TOP_SHARE of a batch's are."""
    return math.ceil(TOP_SHARE * num_rows)


def teacher_target(hidden_RD: Tensor, head: Head, temperature: float) -> Target:
    """Returns the teacher's log-probabilities of any range of rows, computed when asked."""
    head = head.for_rows(hidden_RD)
    return lambda rows: head.log_probs(hidden_RD[rows], temperature)


class Sampled(NamedTuple):
    """What was drawn in each row, when the answers were sampled."""

    token_R: Tensor
    logprob_R: Tensor
    """Of the token, at temperature 1, in nats."""


class Sums(NamedTuple):
    """Over all rows, each with its weight."""

    loss: Tensor
    """Differentiable; the others are not."""
    entropy: Tensor
    """Of the student, nats."""
    share_R: Tensor
    """What each row carries of the loss."""
    gap: Tensor
    """Sum of |log p(token) now - log p(token) when sampled| over the rows with a weight, nats; 0 where unknown."""


def chunked_loss(
    hidden_RD: Tensor, head: Head, target: Target, weight_R: Tensor, measure: Measure, *, temperature: float = 1.0,
    chunk_rows: int = CHUNK_ROWS, sampled: Sampled | None = None,
) -> Sums:  # fmt: skip
    """Returns the loss sum(weight_R * measure_R), sum(weight_R * entropy_R), and what else can be told of the rows.

    Gradients flow into `hidden_RD` and the head (tied to the embedding or not), never into the target.
    """
    plan = _Plan(target, weight_R, measure, temperature, chunk_rows, sampled, torch.is_grad_enabled())
    return Sums(*_ChunkedLoss.apply(hidden_RD, head.weight_VD, head.bias_V, plan))


@dataclass(frozen=True, slots=True)
class _Plan:
    target: Target
    weight_R: Tensor
    measure: Measure
    temperature: float
    chunk_rows: int
    sampled: Sampled | None
    differentiable: bool


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, plan: _Plan
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        head, dtype = Head(weight_VD, bias_V).for_rows(hidden_RD), _product_dtype(hidden_RD)
        share_R = torch.empty_like(plan.weight_R)
        entropy, gap = plan.weight_R.new_zeros(()), plan.weight_R.new_zeros(())
        hidden_gradient = torch.empty_like(hidden_RD) if plan.differentiable else None
        weight_gradient: Tensor | None = None
        bias_gradient: Tensor | None = None
        for start in range(0, len(hidden_RD), plan.chunk_rows):
            rows = slice(start, start + plan.chunk_rows)
            s_RV = head.log_probs(hidden_RD[rows], plan.temperature)
            if plan.sampled:
                gap += _gap(s_RV, plan.temperature, plan.sampled, rows)[plan.weight_R[rows] > 0].sum()
            loss_R, entropy_R, gradient_RV = _measured(s_RV, plan.target(rows), plan.measure)
            weight_R = plan.weight_R[rows]
            share_R[rows] = loss_R * weight_R
            entropy += (entropy_R * weight_R).sum()
            if hidden_gradient is None:
                continue
            gradient_RV = gradient_RV.mul_(weight_R[:, None] / plan.temperature).to(dtype)
            hidden_gradient[rows] = product(gradient_RV, head.weight_VD).to(hidden_RD.dtype)
            if ctx.needs_input_grad[1]:  # not where only an adapter is trained
                weight_gradient = _plus_product(
                    weight_gradient, gradient_RV.T, hidden_RD[rows].to(dtype), weight_VD.dtype
                )
            if bias_V is not None and ctx.needs_input_grad[2]:
                bias_gradient = _plus(bias_gradient, gradient_RV.sum(0).to(bias_V.dtype))
        ctx.save_for_backward(hidden_gradient, weight_gradient, bias_gradient)
        ctx.mark_non_differentiable(entropy, share_R, gap)
        return share_R.sum(), entropy, share_R, gap

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        gradients = [None if gradient is None else gradient * upstream[0] for gradient in ctx.saved_tensors]
        return *gradients, None


def _gap(s_RV: Tensor, temperature: float, sampled: Sampled, rows: slice) -> Tensor:
    """Returns by how much the log-probability of each row's token at temperature 1 is another than it was."""
    told_R = s_RV.gather(1, sampled.token_R[rows, None]).squeeze(1)
    if temperature != 1:
        told_R = temperature * told_R - torch.logsumexp(temperature * s_RV, -1)
    return (told_R - sampled.logprob_R[rows]).abs()


def _measured(s_RV: Tensor, target: Tensor, measure: Measure) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the measure and the student's entropy of each row, and the gradient, which takes the place of `s_RV`.

    A few rows at a time where that keeps them in the processor's cache: a measure passes over them a dozen times.
    """
    tile_rows = TILE_ROWS.get(s_RV.device.type, len(s_RV))
    loss_R, entropy_R = s_RV.new_empty(len(s_RV)), s_RV.new_empty(len(s_RV))
    for start in range(0, len(s_RV), tile_rows):
        tile = slice(start, start + tile_rows)
        s_TV = s_RV[tile]
        loss_R[tile], gradient_TV = measure(s_TV, target[tile])
        entropy_R[tile] = -(s_TV.exp().mul_(s_TV)).sum(-1)
        s_TV.copy_(gradient_TV)
    return loss_R, entropy_R, s_RV


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)


def _plus_product(total: Tensor | None, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the total plus a product; in one go where both are of one type: a product is as large as the head."""
    if total is not None and left.dtype == total.dtype:
        return total.addmm_(left, right)
    return _plus(total, _wide_product(left, right).to(dtype))


def _wide_product(left: Tensor, right: Tensor) -> Tensor:
    """Returns the product; of bf16 on a GPU in fp32, as it is added up there: logits would lose two digits of four."""
    if left.device.type == "cuda" and left.dtype == torch.bfloat16:
        return torch.mm(left, right, out_dtype=torch.float32)
    return product(left, right)


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """Returns the type of large products: autocast's where it is on (which does not reach into a custom operation)."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
