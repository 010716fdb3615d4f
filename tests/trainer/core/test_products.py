"""Products by oneDNN: the same as PyTorch's but for roundings, forward and back, in all layers of a model on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skill_trainer import products
from skill_trainer.decoding_weights import decoding_weights
from skill_trainer.model import LanguageModel
from skill_trainer.products import Linear, product
from skill_trainer.teacher import Ema

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize("shape", [(5, 48), (1, 33, 48), (2, 3, 48)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_a_plain_layer(shape: tuple[int, ...], bias: bool):
    layer = nn.Linear(48, 24, bias=bias)
    given, upstream = torch.randn(shape, requires_grad=True), torch.randn(*shape[:-1], 24)

    def passed() -> list[torch.Tensor]:
        output = layer(given)
        return [output, *torch.autograd.grad(output, (given, *layer.parameters()), upstream)]

    expected = passed()
    products.use_in(layer)
    assert type(layer) is Linear
    for ours, theirs in zip(passed(), expected, strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_an_upstream_gradient_may_lie_in_memory_as_it_likes():
    layer, given = nn.Linear(8, 4), torch.randn(6, 8, requires_grad=True)
    products.use_in(layer)
    upstream = torch.randn(4, 6).T
    (gradient,) = torch.autograd.grad(layer(given), given, upstream)
    assert torch.allclose(gradient, upstream @ layer.weight, atol=1e-5)


def test_what_is_frozen_gets_no_gradient():
    layer, given = nn.Linear(8, 4).requires_grad_(requires_grad=False), torch.randn(3, 8, requires_grad=True)
    products.use_in(layer)
    layer(given).sum().backward()
    assert given.grad is not None
    assert layer.weight.grad is None
    assert layer.bias.grad is None


def test_a_product_that_autograd_has_to_see_is_seen():
    rows, matrix = torch.randn(3, 8, requires_grad=True), torch.randn(8, 4)
    product(rows, matrix).sum().backward()
    assert rows.grad is not None
    assert torch.allclose(rows.grad, matrix.sum(1).expand(3, -1), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_multiplied_as_before(dtype: torch.dtype):
    rows, matrix = torch.randn(3, 8, dtype=dtype), torch.randn(8, 4, dtype=dtype)
    assert torch.equal(product(rows, matrix), rows @ matrix)


def test_all_layers_of_a_model_and_of_its_teacher_multiply_so(tiny: LanguageModel):
    for model in (tiny, Ema(tiny, 0.5).model):
        layers = [module for module in model.network.modules() if isinstance(module, nn.Linear)]
        assert layers
        assert all(type(layer) is Linear for layer in layers)


@torch.no_grad()
def test_such_a_layer_has_weights_in_blocks_while_answers_are_made():
    network = nn.Sequential(nn.Linear(4, 4))
    products.use_in(network)
    with decoding_weights(network):
        assert "forward" in vars(network[0])
