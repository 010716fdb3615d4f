"""The copy of the weights: the same products but for roundings, while the context lasts, and only where it can be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skill_trainer.decoding import Growing
from skill_trainer.decoding_weights import decoding_weights
from skill_trainer.model import LanguageModel

pytestmark = pytest.mark.trainer


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 8, 33])
def test_products_are_the_same_and_the_layers_are_as_before_afterwards(rows: int):
    network = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 16, bias=False))
    given = torch.randn(rows, 48)
    expected = network(given)
    with decoding_weights(network):
        blocked = network(given)
        assert all("forward" in vars(layer) for layer in network if isinstance(layer, nn.Linear))
    assert torch.allclose(blocked, expected, atol=1e-5)
    assert not any("forward" in vars(layer) for layer in network)
    assert torch.equal(network(given), expected)


@torch.no_grad()
def test_weights_are_those_of_now_each_time():
    network = nn.Sequential(nn.Linear(8, 8, bias=False))
    given = torch.randn(3, 8)
    for _ in range(2):
        network[0].weight.mul_(2)
        with decoding_weights(network):
            assert torch.allclose(network(given), given @ network[0].weight.T, atol=1e-5)


def test_inner_context_leaves_the_outer_one_in_place():
    network = nn.Sequential(nn.Linear(4, 4))
    with decoding_weights(network):
        outer = vars(network[0])["forward"]
        with decoding_weights(network):
            assert vars(network[0])["forward"] is outer
        assert vars(network[0])["forward"] is outer


def test_other_layers_are_left_alone():
    network = nn.Sequential(nn.Linear(4, 4, dtype=torch.float64), nn.Conv1d(1, 1, 1))
    with decoding_weights(network):
        assert not any("forward" in vars(layer) for layer in network)


@torch.no_grad()
def test_model_with_all_its_layers_blocked_predicts_the_same(tiny: LanguageModel):
    prompts = torch.randint(5, 50, (3, 7)).tolist()
    plain = Growing(tiny, prompts).logits_AV
    with decoding_weights(tiny.network):
        blocked = Growing(tiny, prompts).logits_AV
    assert torch.allclose(plain, blocked, atol=1e-4)
