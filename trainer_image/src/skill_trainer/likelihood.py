"""How probable a model finds answers that it is given. Generates nothing: a forward pass a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from statistics import fmean

import torch

from skill_trainer.device import precision
from skill_trainer.divergence import chunked_loss, cross_entropy, token_weights
from skill_trainer.model import LanguageModel

BATCH_ROWS = 8


def nats_per_token(model: LanguageModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> float:
    """Returns the mean negative log-probability of the answers' tokens: over each answer, then over the answers."""
    return fmean(nats_by_answer(model, prompts, answers))


@torch.no_grad()
def nats_by_answer(
    model: LanguageModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[float]:
    """Returns the mean negative log-probability of the tokens of each answer, nats."""
    found = list[float]()
    for start in range(0, len(prompts), BATCH_ROWS):
        rows = list(zip(prompts[start : start + BATCH_ROWS], answers[start : start + BATCH_ROWS], strict=True))
        lengths = [len(answer) for _, answer in rows]
        hidden_RD = model.hidden_rows(
            [(*prompt, *answer[:-1]) for prompt, answer in rows], [len(prompt) - 1 for prompt, _ in rows]
        )
        token_R = torch.tensor([token for _, answer in rows for token in answer], device=model.device)
        weight_R = torch.tensor(token_weights(lengths, skip=0, weights=[1.0] * len(rows), total=1), device=model.device)
        with precision(model.device):
            sums = chunked_loss(hidden_RD, model.head, token_R.__getitem__, weight_R, cross_entropy)
        shares = iter(sums.share_R.tolist())
        found += [sum(islice(shares, length)) for length in lengths]
    return found
