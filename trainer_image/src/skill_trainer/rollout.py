"""Answers of a model: sampled for training, greedy for scores. Nothing here is differentiable.

Shape suffixes: B prompts, A those of them that still run, V vocabulary, N new tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skill_trainer.decoding import decoding
from skill_trainer.decoding_weights import decoding_weights
from skill_trainer.model import LanguageModel

BATCH_ROWS = 32
"""Prompts that are answered at the same time; a decode step reads all weights once, however many rows there are."""

ROOM = {"cpu": 1_000_000_000, "cuda": 4_000_000_000}
"""Bytes of answers that are made at the same time, unless the model says how much room there is."""

DRAWING = 24
"""Bytes for each word of the vocabulary while a token is drawn: logits twice in fp32, shares in fp64 and int64."""

PARTS = 2**50
"""What a probability of 1 is divided into; a product of a total and a number below 1 stays exactly below the total."""

Choose = Callable[[Tensor, Tensor, int], Tensor]
"""(logits_AV, which of the prompts these are [A], number of the new token) -> chosen tokens [A]."""


@dataclass(frozen=True, slots=True)
class Answer:
    tokens: tuple[int, ...]
    """What was generated, the end-of-turn token included where it came."""
    logprobs: tuple[float, ...]
    """Log-probability of each token at temperature 1, in nats."""
    finished: bool
    """False where the answer was cut at the limit."""
    margin: float
    """Smallest lead of the most probable token over the next one, in nats: how safe greedy tokens are from rounding."""


def sample(
    model: LanguageModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, temperature: float,
    generator: torch.Generator, rows: Sequence[int] | None = None,
) -> list[Answer]:  # fmt: skip
    """Returns one answer per prompt, y ~ softmax(logits / temperature), from the model's current weights.

    Where `rows` are given, only for the prompts of these numbers, with the same uniform numbers as among all.
    """
    rows = list(range(len(prompts)) if rows is None else rows)
    uniform_BN = torch.rand((len(prompts), max_new_tokens), generator=generator, dtype=torch.float64)
    answers: list[Answer] = []
    with _decoding_weights(model):  # once for all
        count = at_once(model, [prompts[row] for row in rows], max_new_tokens)
        for start in range(0, len(rows), count):
            some = rows[start : start + count]
            choose = sampler(uniform_BN[some].to(model.device), temperature)
            answers += generate(model, [prompts[row] for row in some], max_new_tokens, choose)
    return answers


def sampler(uniform_BN: Tensor, temperature: float) -> Choose:
    """Returns how tokens are drawn: by inversion of the distribution function.

    Probabilities are whole multiples of 2^-50, so that their sums do not depend on the order in which a GPU adds.

    One uniform number per prompt and token, drawn beforehand, so an answer depends neither on when other rows end nor,
    but for roundings, on how prompts are cut into batches: about one draw in a thousand falls so near to the border of
    two improbable tokens that another batch decides it differently.
    """

    def choose(logits_AV: Tensor, rows_A: Tensor, number: int) -> Tensor:
        shares_AV = torch.softmax(logits_AV.double() / temperature, dim=-1).mul_(PARTS).long()
        cumulative_AV = shares_AV.cumsum_(dim=-1)
        threshold_A1 = (uniform_BN[rows_A, number, None] * cumulative_AV[:, -1:]).long()
        chosen_A = torch.searchsorted(cumulative_AV, threshold_A1, right=True).squeeze(1)
        return chosen_A.clamp_(max=logits_AV.shape[1] - 1)  # of a model that has diverged, which the loop finds

    return choose


def greedy(
    model: LanguageModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, batch_rows: int = BATCH_ROWS,
    between: Callable[[], None] = lambda: None,
) -> list[Answer]:  # fmt: skip
    """Returns the most probable tokens, in the prompts' order.

    Similar lengths share a batch; `between` is called after each.
    """
    batch_rows = min(batch_rows, at_once(model, prompts, max_new_tokens))
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: dict[int, Answer] = {}
    with _decoding_weights(model):  # once for all batches
        for start in range(0, len(order), batch_rows):
            rows = order[start : start + batch_rows]
            batch = generate(model, [prompts[row] for row in rows], max_new_tokens, _most_probable)
            answers.update(zip(rows, batch, strict=True))
            between()
    return [answers[index] for index in range(len(prompts))]


def at_once(model: LanguageModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> int:
    """Returns how many of these prompts may be answered at the same time; at least one."""
    device = model.device.type
    token_bytes = cached_numbers(model.network) * (2 if device == "cuda" else 4)
    longest = max(map(len, prompts), default=0)
    one = answer_bytes(token_bytes, len(model.head.weight_VD), longest, max_new_tokens)
    return max(1, (ROOM[device] if model.answer_room is None else model.answer_room) // one)


def answer_bytes(token_bytes: int, vocabulary: int, prompt: int, answer: int) -> int:
    """Returns the bytes that an answer takes while it is made.

    Args:
        token_bytes: of a token in the cache, where the prompt is twice for a moment: while it gets room for the answer.
        vocabulary: number of words.
        prompt: its tokens.
        answer: its tokens, at most.
    """
    return token_bytes * (2 * prompt + answer) + DRAWING * vocabulary


def cached_numbers(network: Any) -> int:
    """Returns how many numbers the cache keeps of a token: keys and values of all layers, by the configuration.

    0 where that does not say it: of a model that keeps other state, which does not grow with the tokens.
    """
    config = network.config.get_text_config()

    def said(name: str) -> int:
        value = getattr(config, name, None)
        return value if isinstance(value, int) else 0

    heads = said("num_attention_heads")
    width = said("head_dim") or (said("hidden_size") // heads if heads else 0)
    return 2 * said("num_hidden_layers") * (said("num_key_value_heads") or heads) * width


def _decoding_weights(model: LanguageModel) -> AbstractContextManager[None]:
    return decoding_weights(model.network, model.network.get_output_embeddings())


def _most_probable(logits_AV: Tensor, rows_A: Tensor, number: int) -> Tensor:  # noqa: ARG001 - a Choose
    return logits_AV.argmax(-1)


@torch.no_grad()
def generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, choose: Choose
) -> list[Answer]:
    """Returns an answer per prompt, token by token as `choose` takes them from the model's logits."""
    if not prompts:
        return []
    with _decoding_weights(model):
        return _generate(model, prompts, max_new_tokens, choose)


def _generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, choose: Choose
) -> list[Answer]:
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    margins: list[float] = [math.inf] * len(prompts)
    ends = torch.tensor(model.tokens.end_of_turn, device=model.device)
    rows_A = torch.arange(len(prompts), device=model.device)
    going = decoding(model, prompts, max_new_tokens)
    for number in range(max_new_tokens):
        chosen_A = choose(going.logits_AV, rows_A, number)
        logprob_A = torch.log_softmax(going.logits_AV, -1).gather(1, chosen_A[:, None]).squeeze(1)
        best_A, second_A = going.logits_AV.topk(2).values.unbind(1)
        made = zip(*(each.tolist() for each in (rows_A, chosen_A, logprob_A, best_A - second_A)), strict=True)
        for row, token, logprob, margin in made:
            tokens[row].append(token)
            logprobs[row].append(logprob)
            margins[row] = min(margins[row], margin)
        running_A = ~torch.isin(chosen_A, ends)
        if not running_A.all():  # rows that have ended are dropped, not padded
            kept = running_A.nonzero().squeeze(1)
            rows_A, chosen_A = rows_A[kept], chosen_A[kept]
            going.keep(kept)
        if not len(rows_A) or number + 1 == max_new_tokens:
            break
        going.append(chosen_A)
    unfinished = set(rows_A.tolist())
    return [Answer(tuple(tokens[b]), tuple(logprobs[b]), b not in unfinished, margins[b]) for b in range(len(prompts))]
