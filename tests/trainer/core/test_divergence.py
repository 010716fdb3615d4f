"""The loss against slow float64 references and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from skill_contract.spec import Divergence
from skill_trainer.divergence import (
    MEASURES,
    Head,
    Sampled,
    chunked_loss,
    cross_entropy,
    teacher_target,
    token_weights,
)

R, D, V = 11, 6, 23


def reference(divergence: Divergence, s: Tensor, t: Tensor) -> Tensor:
    """The textbook formulas [R] from log-probabilities [R, V]."""
    kl = lambda a, b: (a.exp() * (a - b)).sum(-1)  # noqa: E731
    m = ((s.exp() + t.exp()) / 2).log()
    return {
        Divergence.FORWARD_KL: lambda: kl(t, s),
        Divergence.REVERSE_KL: lambda: kl(s, t),
        Divergence.JSD: lambda: (kl(t, m) + kl(s, m)) / 2,
    }[divergence]()


class Problem:
    """Random student and teacher in float64."""

    def __init__(self, *, bias: bool = False) -> None:
        generator = torch.Generator().manual_seed(3)
        draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.hidden, self.weight, self.bias = draw(R, D), draw(V, D), draw(V) if bias else None
        self.teacher_hidden, self.teacher_head = draw(R, D), Head(draw(V, D))
        self.row_weights = draw(R).abs()
        self.tokens = torch.randint(V, (R,), generator=generator)

    def leaves(self) -> list[Tensor]:
        found = [self.hidden, self.weight] + ([self.bias] if self.bias is not None else [])
        return [leaf.requires_grad_() for leaf in found]

    def ours(self, divergence: Divergence, temperature: float, chunk_rows: int) -> Tensor:
        target = teacher_target(self.teacher_hidden, self.teacher_head, temperature)
        head = Head(self.weight, self.bias)
        loss, *_ = chunked_loss(
            self.hidden, head, target, self.row_weights, MEASURES[divergence], temperature=temperature,
            chunk_rows=chunk_rows,
        )  # fmt: skip
        return loss

    def slow(self, divergence: Divergence, temperature: float) -> Tensor:
        logits = self.hidden @ self.weight.T + (0 if self.bias is None else self.bias)
        s = torch.log_softmax(logits / temperature, -1)
        t = torch.log_softmax(self.teacher_hidden @ self.teacher_head.weight_VD.T / temperature, -1)
        return (reference(divergence, s, t) * self.row_weights).sum()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk_rows", [1, 4, 128])
@pytest.mark.parametrize("divergence", list(Divergence))
def test_loss_and_gradients_equal_the_reference(divergence, chunk_rows, temperature, bias):
    problem = Problem(bias=bias)
    leaves = problem.leaves()
    ours = problem.ours(divergence, temperature, chunk_rows)
    slow = problem.slow(divergence, temperature)
    torch.testing.assert_close(ours, slow, rtol=1e-12, atol=0)
    for got, expected in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(slow, leaves), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("divergence", list(Divergence))
def test_gradients_equal_finite_differences(divergence):
    problem = Problem(bias=True)
    leaves = problem.leaves()
    assert torch.autograd.gradcheck(lambda *_: problem.ours(divergence, 1.3, 4), leaves, raise_exception=True)


def test_gradient_of_forward_kl_is_the_difference_of_probabilities():
    problem = Problem()
    eye = torch.eye(V, dtype=torch.float64)
    logits = torch.randn(R, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    target = teacher_target(problem.teacher_hidden, problem.teacher_head, 0.5)
    measure = MEASURES[Divergence.FORWARD_KL]
    loss, *_ = chunked_loss(logits, Head(eye), target, problem.row_weights, measure, temperature=0.5)
    (gradient,) = torch.autograd.grad(loss, logits)
    difference = torch.softmax(logits / 0.5, -1) - target(slice(None)).exp()
    torch.testing.assert_close(gradient, difference / 0.5 * problem.row_weights[:, None])


def test_cross_entropy_equals_torchs():
    problem = Problem()
    leaves = problem.leaves()
    head = Head(problem.weight)
    ours, *_ = chunked_loss(problem.hidden, head, lambda rows: problem.tokens[rows], problem.row_weights, cross_entropy)
    losses = torch.nn.functional.cross_entropy(problem.hidden @ problem.weight.T, problem.tokens, reduction="none")
    slow = (losses * problem.row_weights).sum()
    torch.testing.assert_close(ours, slow)
    torch.testing.assert_close(torch.autograd.grad(ours, leaves), torch.autograd.grad(slow, leaves))


def test_entropy_is_the_students():
    problem = Problem()
    target = teacher_target(problem.teacher_hidden, problem.teacher_head, 1.0)
    head = Head(problem.weight)
    entropy = chunked_loss(
        problem.hidden, head, target, problem.row_weights, MEASURES[Divergence.JSD], chunk_rows=3
    ).entropy
    expected = torch.distributions.Categorical(logits=problem.hidden @ problem.weight.T).entropy()
    torch.testing.assert_close(entropy, (expected * problem.row_weights).sum())


def test_what_each_row_carries_is_told():
    problem = Problem()
    head = Head(problem.weight)
    sums = chunked_loss(
        problem.hidden, head, lambda rows: problem.tokens[rows], problem.row_weights, cross_entropy, chunk_rows=3
    )
    rows = torch.nn.functional.cross_entropy(problem.hidden @ problem.weight.T, problem.tokens, reduction="none")
    torch.testing.assert_close(sums.share_R, rows * problem.row_weights)
    torch.testing.assert_close(sums.share_R.sum(), sums.loss)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_how_far_sampled_tokens_are_from_where_they_are_trained_on(temperature: float):
    """At temperature 1, as the sampler tells them, whatever the loss is computed at; rows of no weight do not count."""
    problem, apart = Problem(), torch.linspace(-0.2, 0.3, R, dtype=torch.float64)
    told = torch.log_softmax(problem.hidden @ problem.weight.T, -1).gather(1, problem.tokens[:, None]).squeeze(1)
    target = teacher_target(problem.teacher_hidden, problem.teacher_head, temperature)
    problem.row_weights[3] = 0
    sums = chunked_loss(
        problem.hidden, Head(problem.weight), target, problem.row_weights, MEASURES[Divergence.FORWARD_KL],
        temperature=temperature, chunk_rows=4, sampled=Sampled(problem.tokens, told + apart),
    )  # fmt: skip
    torch.testing.assert_close(sums.gap, apart.abs().sum() - apart[3].abs())


def test_the_teachers_dead_weights_show_in_the_loss():
    """A head of zeros knows nothing: ln V nats from a sure student, by KL(student || teacher); no more by the JSD."""
    sure, dead = torch.zeros(R, V), Head(torch.zeros(V, V))
    sure[:, 0] = 100.0
    target = teacher_target(torch.randn(R, V), dead, 1.0)
    mean = torch.full((R,), 1 / R)
    losses = [chunked_loss(sure, Head(torch.eye(V)), target, mean, MEASURES[each]).loss for each in Divergence]
    assert losses[1].item() == pytest.approx(math.log(V), rel=1e-5)
    assert losses[2].item() <= math.log(2)


def test_gradient_reaches_a_head_that_is_tied_to_the_embedding():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(V, D, dtype=torch.float64, generator=generator).requires_grad_()
    tokens, targets = torch.randint(V, (2, R), generator=generator)
    hidden = torch.tanh(weight[tokens])
    ours, *_ = chunked_loss(hidden, Head(weight), lambda rows: targets[rows], torch.ones(R).double(), cross_entropy)
    slow = torch.nn.functional.cross_entropy(torch.tanh(weight[tokens]) @ weight.T, targets, reduction="sum")
    torch.testing.assert_close(torch.autograd.grad(ours, weight), torch.autograd.grad(slow, weight))


@pytest.mark.parametrize("divergence", list(Divergence))
def test_extreme_logits_stay_finite(divergence):
    """Both are one-hot in fp32, on different tokens: 0 times log 0 must not become NaN."""
    hidden, teacher_hidden = torch.zeros(2, V), torch.zeros(2, V)
    hidden[:, 0], teacher_hidden[:, 1] = 300.0, 300.0
    hidden.requires_grad_()
    target = teacher_target(teacher_hidden, Head(torch.eye(V)), 1.0)
    loss, *_ = chunked_loss(hidden, Head(torch.eye(V)), target, torch.ones(2), MEASURES[divergence])
    loss.backward()
    assert torch.isfinite(loss)
    assert hidden.grad.isfinite().all()
    assert loss > 1


def test_token_weights_are_the_mean_over_tokens_then_over_sequences():
    weights = token_weights([5, 2, 3, 4], skip=3, weights=[1.0, 1.0, 1.0, 2.0], total=5.0)
    assert weights == pytest.approx([0.1, 0.1, 0.4])  # only the first and the last are longer than what is skipped


def test_token_weights_sum_to_one_without_short_answers():
    assert sum(token_weights([4, 9, 1], skip=0, weights=[1.0, 0.5, 2.0], total=3.5)) == pytest.approx(1.0)


@pytest.mark.parametrize("divergence", list(Divergence))
def test_bf16_products_are_near_fp32_and_loss_and_gradients_stay_in_fp32(divergence: Divergence):
    def run() -> tuple[Tensor, Tensor, Tensor]:
        problem = Problem()
        hidden, weight = (leaf.detach().float().requires_grad_() for leaf in (problem.hidden, problem.weight))
        head = Head(problem.teacher_head.weight_VD.float())
        target = teacher_target(problem.teacher_hidden.float(), head, 1.0)
        loss, *_ = chunked_loss(hidden, Head(weight), target, problem.row_weights.float(), MEASURES[divergence])
        loss.backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        return loss.detach(), hidden.grad, weight.grad

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run()
    for near, true in zip(rounded, exact, strict=True):
        assert near.dtype == torch.float32
        assert not torch.equal(near, true)  # else nothing was rounded, and nothing tested
        assert torch.allclose(near, true, rtol=0.05, atol=0.05 * true.abs().max().item())
