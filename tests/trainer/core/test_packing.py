"""Sequences in one row: as if each had been alone, for every kind of attention, gradients included."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from skill_trainer.model import LanguageModel
from skill_trainer.packing import PACKED, Packing, Padding
from tests.trainer.core.conftest import CPU, gradients, rows_alone

SHAPE = {
    "vocab_size": 2048, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
KINDS = {
    "Llama": LlamaConfig(**SHAPE),
    "Llama, a key for each head": LlamaConfig(**SHAPE | {"num_key_value_heads": 4}),
    "Qwen2": Qwen2Config(**SHAPE),
    "Qwen3": Qwen3Config(**SHAPE),
    "Mistral with a sliding window": MistralConfig(**SHAPE, sliding_window=4),
}
SEQUENCES = {
    "a shared beginning": [[5, 6, 7, 1, 2, 3, 4], [5, 6, 7, 2, 9], [5, 6, 7, 8, 8, 8, 8, 8, 1]],
    "nothing shared": [[1, 2, 3], [4, 5, 6, 7, 8], [9, 9]],
    "only one": [[3, 1, 4, 1, 5]],
    "all the same": [[3, 1, 4], [3, 1, 4]],
}


def made(config, tiny: LanguageModel) -> LanguageModel:
    """A random model of this kind, as `LanguageModel.load` would have prepared it."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    network.set_attn_implementation(PACKED)
    return LanguageModel(network, tiny.tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sequences", SEQUENCES.values(), ids=SEQUENCES)
def test_a_row_gives_what_each_sequence_gives_alone(kind, sequences, tiny):
    model = made(KINDS[kind], tiny)
    assert model.packs == ("sliding" not in kind)
    first = [len(sequence) - 1 for sequence in sequences]
    direction_D = torch.randn(32, generator=torch.Generator().manual_seed(1))

    together, alone = model.hidden_rows(sequences, first), rows_alone(model, sequences, first)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    both = (gradients(model, rows, direction_D) for rows in (together, alone))
    for got, expected in zip(*both, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sequences", SEQUENCES.values(), ids=SEQUENCES)
def test_padding_for_attention_alone_gives_the_same(sequences, tiny, monkeypatch):
    """What is done on a GPU."""
    model = made(KINDS["Llama"], tiny)
    first = [len(sequence) - 1 for sequence in sequences]
    direction_D = torch.randn(32, generator=torch.Generator().manual_seed(1))
    one_by_one = model.hidden_rows(sequences, first)
    monkeypatch.setattr(Packing, "of", partial(Packing.of, padded=True))
    together = model.hidden_rows(sequences, first)
    torch.testing.assert_close(together, one_by_one, rtol=1e-5, atol=1e-5)
    both = (gradients(model, rows, direction_D) for rows in (together, one_by_one))
    for got, expected in zip(*both, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_rests_are_padded_on_the_right_and_come_back():
    padding = Padding.of([2, 3, 1], CPU)
    tokens_1HNE = torch.arange(1.0, 7.0).view(1, 1, 6, 1)
    rows_BHLE = padding.padded(tokens_1HNE)
    assert rows_BHLE[:, 0, :, 0].tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert torch.equal(padding.tokens(rows_BHLE.transpose(1, 2)), tokens_1HNE.transpose(1, 2))


def test_what_all_share_lies_in_the_row_once():
    packing = Packing.of([4, 3], 2, CPU)
    assert packing.row([[7, 8, 1, 2], [7, 8, 3]]) == [7, 8, 1, 2, 3]
    assert packing.positions() == [0, 1, 2, 3, 2]
    assert packing.places([3, 2]) == [3, 4]
    assert packing.visible[2][0, 0].tolist() == [[True, True, True, False], [True, True, True, True]]
    assert [len(part) for part in packing.split(torch.arange(5), 0)] == [2, 2, 1]


def test_a_loaded_model_packs(tiny):
    assert tiny.packs


def test_a_random_model_for_timing_packs_like_the_real_one(tiny_llama_dir):
    assert LanguageModel.random(tiny_llama_dir, 1, CPU).packs
