"""Sequences of different lengths in one row of tokens, without padding; what all begin with is there only once.

All layers but attention look at one token at a time and do not care whose it is. Attention is called sequence by
sequence, by the library's own function, so that scores never cross from one sequence to the next.

Shape suffixes: N tokens of the row, K tokens of a sequence from its very beginning, L tokens of its rest, H heads, E
width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"
"""The name by which a model asks for `packed_attention`."""

NO_MASK = torch.empty(1, 1, 1, 0)
"""A mask of four dimensions is taken as it is; without one, the library would build one of N x N."""


@dataclass(frozen=True, slots=True)
class Packing:
    """The order of the tokens in a row: first what all sequences share, then the rest of each."""

    shared: int
    rests: tuple[int, ...]
    """Tokens of each sequence that follow what is shared."""
    visible: dict[int, Tensor]
    """What a rest of that many tokens may look at [1, 1, L, K]: what is shared, and what comes before."""

    @classmethod
    def of(cls, lengths: Sequence[int], shared: int, device: torch.device) -> Self:
        """Returns the packing of sequences of these lengths, whose first `shared` tokens are the same."""
        rests = tuple(length - shared for length in lengths)
        visible = {
            rest: torch.ones(1, 1, rest, shared + rest, dtype=torch.bool, device=device).tril(shared)
            for rest in (set(rests) if shared else ())
        }
        return cls(shared, rests, visible)

    def row(self, sequences: Sequence[Sequence[int]]) -> list[int]:
        """Returns the tokens of the row."""
        return [*sequences[0][: self.shared], *(token for each in sequences for token in each[self.shared :])]

    def positions(self) -> list[int]:
        """Returns the place of each token of the row in its own sequence."""
        return [*range(self.shared), *(self.shared + place for rest in self.rests for place in range(rest))]

    def split(self, row: Tensor, dim: int) -> tuple[Tensor, ...]:
        """Returns the shared part and the rest of each sequence, as views."""
        return row.split((self.shared, *self.rests), dim)


def packed_attention(
    module: Any, query_1HNE: Tensor, key_1HNE: Tensor, value_1HNE: Tensor, attention_mask: Tensor | None, *,
    packing: Packing | None = None, **settings: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Returns the attention [1, N, H, E] of a packed row; without a packing, what the library does anyway.

    Source: transformers, `AttentionInterface`; `packing` comes through the model's keyword arguments.
    """
    if packing is None:
        return sdpa_attention_forward(module, query_1HNE, key_1HNE, value_1HNE, attention_mask, **settings)
    query, key, value = (packing.split(each, 2) for each in (query_1HNE, key_1HNE, value_1HNE))
    outputs: list[Tensor] = []
    if packing.shared:
        outputs.append(sdpa_attention_forward(module, query[0], key[0], value[0], None, **settings)[0])
    for rest_1HLE, own_key, own_value in zip(query[1:], key[1:], value[1:], strict=True):
        if packing.shared:
            keys_1HKE, values_1HKE = torch.cat((key[0], own_key), 2), torch.cat((value[0], own_value), 2)
            visible_11LK = packing.visible[rest_1HLE.shape[2]]
        else:
            keys_1HKE, values_1HKE, visible_11LK = own_key, own_value, None
        outputs.append(sdpa_attention_forward(module, rest_1HLE, keys_1HKE, values_1HKE, visible_11LK, **settings)[0])
    return torch.cat(outputs, 1), None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
