"""Generation one token at a time: what is kept between two tokens, for all prompts of a batch.

Says nothing of which token is chosen. `Growing` is for every device and model. On a GPU a decode step of a small batch
is over before Python has launched the kernels of the next one, so `Recorded` launches them all at once.

Shape suffixes: B prompts, A those of them that still run, T tokens, C cached tokens, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from skill_trainer.device import without_order
from skill_trainer.model import LanguageModel

_left_padded = partial(pad_sequence, batch_first=True, padding_side="left")

log = logging.getLogger(__name__)

WORTH_RECORDING = 4
"""Tokens from which recording a step, which costs about as much as taking it, pays."""


class Decoding(Protocol):
    logits_AV: Tensor
    """Of the next token of each prompt that still runs, fp32."""

    def keep(self, kept: Tensor) -> None:
        """Goes on with these of the running prompts only."""

    def append(self, chosen_A: Tensor) -> None:
        """Takes a token for each running prompt, and computes the next logits."""


class Growing:
    """A cache that grows with every token; prompts that have ended leave it."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self.model = model
        self.cache, shared = model.primed_cache(prompts, longest=min(len(prompt) for prompt in prompts) - 1)
        rests = [torch.tensor(prompt[shared:], device=model.device) for prompt in prompts]
        tokens_AT = _left_padded(rests, padding_value=model.tokens.end_of_turn[0])
        mask_AT = _left_padded([torch.ones_like(rest) for rest in rests])
        self.mask_AC = functional.pad(mask_AT, (shared, 0), value=1)
        self.logits_AV = self._logits(tokens_AT)

    def keep(self, kept: Tensor) -> None:
        """Drops the other prompts from the cache."""
        self.mask_AC = self.mask_AC[kept]
        self.cache.batch_select_indices(kept)

    def append(self, chosen_A: Tensor) -> None:
        """Makes the cache a token longer."""
        self.mask_AC = functional.pad(self.mask_AC, (0, 1), value=1)
        self.logits_AV = self._logits(chosen_A[:, None])

    def positions(self, last: int) -> Tensor:
        """Returns the places of the last so many tokens of the cache in their own sequences [A, T]."""
        return (self.mask_AC.cumsum(1) - 1).clamp(min=0)[:, -last:]

    def _logits(self, tokens_AT: Tensor) -> Tensor:
        return self.model.next_logits(tokens_AT, self.mask_AC, self.positions(tokens_AT.shape[1]), self.cache)


class Recorded:
    """A cache of fixed size, and a decode step that is recorded as a CUDA graph and then only played again.

    Prompts that have ended stay in it, and their tokens go nowhere. On other devices than a GPU, and for models whose
    step cannot be recorded (it asks the device something on its way), the step is taken anew each time, with the same
    result. Source: PyTorch, "CUDA Graphs".
    """

    def __init__(self, begun: Growing, room: int) -> None:
        """Goes on from `begun`, whose cache it copies, for at most `room` more tokens."""
        self._model = begun.model
        rows, self._length = begun.mask_AC.shape
        self._cache = begun.model.fixed_cache(begun.cache, self._length + room)
        self._mask_B11C = functional.pad(begun.mask_AC, (0, room))[:, None, None].bool()
        self._tokens_B1 = begun.mask_AC.new_zeros(rows, 1)
        self._positions_B1 = begun.positions(1)
        self._running = torch.arange(rows, device=begun.mask_AC.device)
        self._step: Callable[[], None] = self._take
        self._logits_BV = self.logits_AV = begun.logits_AV
        self._taken = 0

    def keep(self, kept: Tensor) -> None:
        """Looks at the other prompts no more."""
        self._running = self._running[kept]

    def append(self, chosen_A: Tensor) -> None:
        """Writes the tokens where the recorded step reads them, and plays it."""
        self._tokens_B1[self._running, 0] = chosen_A
        self._mask_B11C[..., self._length + self._taken] = True
        self._positions_B1 += 1
        if self._taken == 1:  # the first one has loaded every kernel, which cannot be done while recording
            self._step = self._recorded()
        self._step()
        self._taken += 1
        self.logits_AV = self._logits_BV[self._running]

    @without_order()
    def _take(self) -> None:
        self._logits_BV = self._model.next_logits(self._tokens_B1, self._mask_B11C, self._positions_B1, self._cache)

    def _recorded(self) -> Callable[[], None]:
        if self._model.device.type != "cuda":
            return self._take
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile: those that upload, those of NCCL.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._take()
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            self._model.records = False
            log.warning("decode steps of this model are launched kernel by kernel, which takes longer: %s", reason)
            return self._take
        return graph.replay


def decoding(model: LanguageModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Decoding:
    """Returns a generation that has read the prompts, in the fastest way for the model and its device."""
    begun = Growing(model, prompts)
    is_worth_it = model.device.type == "cuda" and model.records and max_new_tokens >= WORTH_RECORDING
    return Recorded(begun, max_new_tokens) if is_worth_it else begun
