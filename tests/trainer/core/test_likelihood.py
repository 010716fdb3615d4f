"""The probability of given answers, beside transformers' own logits."""

from __future__ import annotations

import pytest
import torch

from skill_trainer import likelihood
from skill_trainer.likelihood import nats_per_token


@pytest.mark.parametrize("batch_rows", [1, 2, 8])
def test_nats_of_answers_are_the_definition(tiny, monkeypatch, batch_rows):
    """Prompts and answers of different lengths, cut into batches in any way."""
    monkeypatch.setattr(likelihood, "BATCH_ROWS", batch_rows)
    prompts, answers = [(1, 2, 3), (4, 5), (6, 7, 8, 9)], [(10, 11), (12,), (13, 14, 15)]
    means = []
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = tiny.network(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None])
        means.append(-chosen.mean().item())
    assert nats_per_token(tiny, prompts, answers) == pytest.approx(sum(means) / 3, rel=1e-5)
