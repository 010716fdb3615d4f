"""Sequences of different lengths in one row of tokens, without padding; what all begin with is there only once.

All layers but attention look at one token at a time and do not care whose it is. Attention is the library's own
function, and scores never cross from one sequence to the next: on a CPU it is called for one sequence after the other.
On a GPU, where each call costs a launch, once for all of them, padded for the time of this call.

Shape suffixes: N tokens of the row, K tokens of a sequence from its very beginning, B sequences, L tokens of its rest
(of the longest, where they are padded), H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"
"""The name by which a model asks for `packed_attention`."""

NO_MASK = torch.empty(1, 1, 1, 0)
"""A mask of four dimensions is taken as it is; without one, the library would build one of N x N."""


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Returns how many tokens all sequences begin with; they are of one type, and none is copied."""
    ordered: Any = sequences
    first, last = min(ordered), max(ordered)  # what the extremes of an ordering share, all share
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(last)))


@dataclass(frozen=True, slots=True)
class Order:
    """What comes to each place from where, along one dimension; nothing comes twice."""

    source: Tensor
    """The number of what comes to a place; any, where nothing does."""
    is_nothing: Tensor | None
    """Where zeros come instead; None where something comes to every place."""

    @classmethod
    def of(cls, source: Tensor, device: torch.device) -> Self:
        """Returns the order from numbers, -1 for nothing."""
        is_nothing = source < 0
        return cls(source.clamp(min=0).to(device), is_nothing.to(device) if is_nothing.any() else None)

    def inverse(self, count: int) -> Order:
        """Returns the way back to where `count` things were."""
        places = torch.arange(len(self.source), device=self.source.device)
        taken = slice(None) if self.is_nothing is None else ~self.is_nothing
        source = torch.full((count,), -1, device=self.source.device)
        source[self.source[taken]] = places[taken]
        return Order.of(source, source.device)

    def of_dim(self, values: Tensor, dim: int) -> Tensor:
        """Returns the values in this order, without gradients."""
        ordered = values.index_select(dim, self.source)
        if self.is_nothing is not None:
            ordered.masked_fill_(self.is_nothing.view(-1, *(1 for _ in range(values.dim() - dim - 1))), 0)
        return ordered


class _Ordered(torch.autograd.Function):
    """Nothing is taken twice, so gradients go back by the inverse order, and are never added up in one that differs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dim: int, order: Order, back: Order) -> Tensor:
        ctx.dim, ctx.back = dim, back
        return order.of_dim(values, dim)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        return ctx.back.of_dim(upstream[0], ctx.dim), None, None, None


def take_rows(values_ND: Tensor, rows: Sequence[int]) -> Tensor:
    """Returns these rows, each of them once at most [R, D]."""
    order = Order.of(torch.tensor(rows), values_ND.device)
    return _Ordered.apply(values_ND, 0, order, order.inverse(len(values_ND)))


@dataclass(frozen=True, slots=True)
class Padding:
    """The way of rests that lie one after the other into rows of the same length, and back."""

    rows: int
    spread: Order
    """From all tokens to the places of all rows."""
    collected: Order

    @classmethod
    def of(cls, rests: Sequence[int], device: torch.device) -> Self:
        """Returns the padding of rests of these lengths, on the right."""
        length_B1, place_L = torch.tensor(rests)[:, None], torch.arange(max(rests))
        token_BL = torch.where(place_L < length_B1, length_B1.cumsum(0) - length_B1 + place_L, -1)
        spread = Order.of(token_BL.flatten(), device)
        return cls(len(rests), spread, spread.inverse(sum(rests)))

    def padded(self, tokens_1HNE: Tensor) -> Tensor:
        """Returns [B, H, L, E], zeros where there is no token."""
        _, heads, _, width = tokens_1HNE.shape
        placed_1HNE = _Ordered.apply(tokens_1HNE, 2, self.spread, self.collected)
        return placed_1HNE.view(heads, self.rows, -1, width).transpose(0, 1)

    def tokens(self, rows_BLHE: Tensor) -> Tensor:
        """Returns [1, N, H, E], the padding left out."""
        return _Ordered.apply(rows_BLHE.flatten(0, 1)[None], 1, self.collected, self.spread)


@dataclass(frozen=True, slots=True)
class Packing:
    """The order of the tokens in a row: first what all sequences share, then the rest of each."""

    shared: int
    rests: tuple[int, ...]
    """Tokens of each sequence that follow what is shared."""
    visible: dict[int, Tensor]
    """What a rest of that many tokens may look at [1, 1, L, K]: what is shared, and what comes before."""
    padding: Padding | None = None
    """Where attention is called for all rests at once."""

    @classmethod
    def of(cls, lengths: Sequence[int], shared: int, device: torch.device, *, padded: bool | None = None) -> Self:
        """Returns the packing of sequences of these lengths, whose first `shared` tokens are the same.

        Args:
            padded: whether attention is called for all rests at once; otherwise by the device.
        """
        padded = device.type == "cuda" if padded is None else padded
        rests = tuple(length - shared for length in lengths)
        visible = {
            rest: torch.ones(1, 1, rest, shared + rest, dtype=torch.bool, device=device).tril(shared)
            for rest in (({max(rests)} if padded else set(rests)) if shared else ())
        }
        return cls(shared, rests, visible, Padding.of(rests, device) if padded else None)

    def row(self, sequences: Sequence[Sequence[int]]) -> list[int]:
        """Returns the tokens of the row."""
        return [*sequences[0][: self.shared], *(token for each in sequences for token in each[self.shared :])]

    def positions(self) -> list[int]:
        """Returns the place of each token of the row in its own sequence."""
        return [*range(self.shared), *(self.shared + place for rest in self.rests for place in range(rest))]

    def places(self, first: Sequence[int]) -> list[int]:
        """Returns where in the row each sequence lies from its position `first` on, which is not among the shared."""
        ends = accumulate(self.rests, initial=self.shared)
        starts = zip(ends, self.rests, first, strict=False)
        return [place for start, rest, own in starts for place in range(start + own - self.shared, start + rest)]

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
    if packing.padding:
        return _padded_attention(module, (query_1HNE, key_1HNE, value_1HNE), packing, packing.padding, settings), None
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


def _padded_attention(
    module: Any, inputs_1HNE: tuple[Tensor, ...], packing: Packing, padding: Padding, settings: dict[str, Any]
) -> Tensor:
    """Returns the attention [1, N, H, E]. Padding lies on the right, where no token looks."""
    heads = [each.shape[1] for each in inputs_1HNE]
    shared_1HNE, rests_1HNE = torch.cat(inputs_1HNE, 1).split((packing.shared, sum(packing.rests)), 2)
    rows = padding.padded(rests_1HNE).split(heads, 1)  # queries, keys and values in one go
    if not packing.shared:
        return padding.tokens(sdpa_attention_forward(module, *rows, None, **settings)[0])
    shared = shared_1HNE.split(heads, 1)
    keys, values = (torch.cat((shared[n].expand(padding.rows, -1, -1, -1), rows[n]), 2) for n in (1, 2))
    visible_11LK = packing.visible[rows[0].shape[2]]
    rests_BLHE = sdpa_attention_forward(module, rows[0], keys, values, visible_11LK, **settings)[0]
    return torch.cat((sdpa_attention_forward(module, *shared, None, **settings)[0], padding.tokens(rests_BLHE)), 1)


class _NarrowKeys:
    """Of a cache: keeps keys in the type of values, in which attention multiplies them.

    Rotated keys are as wide as the hidden states: beside values in bf16 they would be fp32, and made bf16 again for
    each token.
    """

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Adds a layer's new keys and values; returns all of them."""
        keys = key_states.to(value_states.dtype)
        return super().update(keys, value_states, layer_idx, *args, **kwargs)  # type: ignore[misc]


class GrowingCache(_NarrowKeys, DynamicCache):
    """Keys and values of answers that are being made, longer with every token."""


class FixedCache(_NarrowKeys, StaticCache):
    """The same with room for all tokens, and tensors that stay where they are."""


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
