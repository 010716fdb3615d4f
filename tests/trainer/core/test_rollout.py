"""Answers: the same for the same seed, from the weights as they are now, and from the right distribution."""

from __future__ import annotations

import math

import pytest
import torch
import transformers

from skill_trainer.decoding import Growing, Recorded
from skill_trainer.rollout import answer_bytes, cached_numbers, greedy, sample
from skill_trainer.schedule import generator
from tests.trainer.core.conftest import examples, method

NEW = 10


@pytest.fixture
def prompts(tiny):
    return [example.student for example in examples(tiny, method())]


def sampled(model, prompts, *, seed=1, temperature=1.0, new=NEW):
    return sample(model, prompts, max_new_tokens=new, temperature=temperature, generator=generator(seed, "test", 0))


@torch.no_grad()
def end_soon(model):
    """Makes the end of turn likely; returns its token."""
    end = model.tokens.end_of_turn[0]
    model.network.lm_head.weight = torch.nn.Parameter(model.network.lm_head.weight.clone())
    model.network.lm_head.weight[end] *= 4
    return end


def reference_logprobs(model, prompt, answer):
    logits = model.network(input_ids=torch.tensor([[*prompt, *answer.tokens]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, -1)


@torch.no_grad()
def test_greedy_takes_the_most_probable_token_each_time(tiny, prompts):
    for prompt, answer in zip(prompts, greedy(tiny, prompts, max_new_tokens=NEW), strict=True):
        reference = reference_logprobs(tiny, prompt, answer)
        assert answer.tokens == tuple(reference.argmax(-1).tolist())
        assert answer.logprobs == pytest.approx(reference.max(-1).values.tolist(), abs=1e-4)
        best, second = reference.topk(2).values.unbind(1)
        assert answer.margin == pytest.approx((best - second).min().item(), abs=1e-4)


def test_answers_do_not_depend_on_the_company(tiny, prompts):
    together = greedy(tiny, prompts, max_new_tokens=NEW)
    alone = [greedy(tiny, [prompt], max_new_tokens=NEW)[0] for prompt in prompts]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    in_pairs = greedy(tiny, prompts, max_new_tokens=NEW, batch_rows=2)
    assert [answer.tokens for answer in together] == [answer.tokens for answer in in_pairs]


@torch.no_grad()
def test_answers_after_a_shared_beginning_are_those_without(tiny):
    system = {"role": "system", "content": "You answer in few words, always politely, and never about the weather."}
    prompts = [tiny.tokens.encode([system, {"role": "user", "content": text}]) for text in ("Hi", "Who is it?", "You")]
    assert tiny.primed_cache(prompts, longest=200)[1] > 64, "the test must meet the shared path"
    for prompt, answer in zip(prompts, greedy(tiny, prompts, max_new_tokens=NEW), strict=True):
        reference = reference_logprobs(tiny, prompt, answer)
        assert answer.tokens == tuple(reference.argmax(-1).tolist())


def test_a_cache_of_fixed_size_gives_the_same_answers(tiny, prompts, monkeypatch):
    """What is done on a GPU, where the step that uses it is recorded besides."""
    end_soon(tiny)
    growing = sampled(tiny, prompts * 3, new=20)
    monkeypatch.setattr("skill_trainer.rollout.decoding", lambda *of, **_: Recorded(Growing(*of[:2]), of[2]))
    fixed = sampled(tiny, prompts * 3, new=20)
    assert [answer.tokens for answer in fixed] == [answer.tokens for answer in growing]
    assert len({len(answer.tokens) for answer in fixed}) > 1, "the test must meet a prompt that ends early"
    for one, other in zip(fixed, growing, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.fixture
def in_bf16(monkeypatch):
    """Forward passes as on a GPU, and its wide product, which a CPU has not: of bf16 numbers, added up in fp32."""

    def wide(left, right):
        with torch.autocast("cpu", enabled=False):
            return left.float() @ right.float()

    monkeypatch.setattr("skill_trainer.model.precision", lambda _: torch.autocast("cpu", dtype=torch.bfloat16))
    monkeypatch.setattr("skill_trainer.divergence._wide_product", wide)


@torch.no_grad()
def test_answers_are_chosen_by_the_logits_of_the_loss(tiny, prompts, in_bf16):
    """Rounded to bf16 they would be another distribution than the one that is trained: two digits of four are lost."""
    seen = []
    tiny.network.base_model.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state[:, -1]))
    going = Growing(tiny, prompts)
    going.append(torch.full((len(prompts),), 40))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = tiny.head.log_probs(seen[-1], 1.0)
    assert going.logits_AV.dtype == torch.float32
    torch.testing.assert_close(torch.log_softmax(going.logits_AV, -1), expected, rtol=0, atol=1e-6)
    assert not torch.equal(going.logits_AV, going.logits_AV.bfloat16().float()), "the test must tell the two apart"


@torch.no_grad()
@pytest.mark.parametrize("kind", [Growing, lambda *of: Recorded(Growing(*of), 3)])
def test_keys_are_kept_as_narrow_as_values_and_nothing_changes(tiny, prompts, in_bf16, monkeypatch, kind):
    """Under autocast rotated keys are fp32, and attention makes them bf16 anyway."""

    def third_logits():
        going = kind(tiny, prompts)
        for token in (40, 41):
            going.append(torch.full((len(prompts),), token))
        cache = going.cache if isinstance(going, Growing) else going._cache
        return going.logits_AV, {(layer.keys.dtype, layer.values.dtype) for layer in cache.layers}

    logits, types = third_logits()
    assert types == {(torch.bfloat16, torch.bfloat16)}
    monkeypatch.setattr("skill_trainer.model.GrowingCache", transformers.DynamicCache)
    monkeypatch.setattr("skill_trainer.model.FixedCache", transformers.StaticCache)
    as_they_come, types = third_logits()
    assert types == {(torch.float32, torch.bfloat16)}
    assert torch.equal(logits, as_they_come)


@pytest.mark.parametrize("rows", [None, [1, 2, 4]])
def test_answers_are_made_a_few_at_a_time_where_there_is_little_room(tiny, prompts, monkeypatch, rows):
    """The same, as each prompt has its own uniform numbers."""
    seen = []
    monkeypatch.setattr("skill_trainer.rollout.decoding", lambda *of: seen.append(len(of[1])) or Growing(*of[:2]))
    settings = {"max_new_tokens": NEW, "temperature": 1.0, "rows": rows}
    expected = sample(tiny, prompts, generator=generator(1, "test", 0), **settings)
    assert seen == [len(expected)]
    tiny.answer_room = 2 * answer_bytes(4 * cached_numbers(tiny.network), 258, max(map(len, prompts)), NEW)
    some = sample(tiny, prompts, generator=generator(1, "test", 0), **settings)
    assert seen[1:] == ([2, 2, 1] if rows is None else [2, 1])
    assert [answer.tokens for answer in some] == [answer.tokens for answer in expected]
    tiny.answer_room, seen[:] = 0, []
    assert len(greedy(tiny, prompts, max_new_tokens=NEW)) == len(seen) == len(prompts)


def test_the_cache_is_as_large_as_is_counted(tiny, prompts):
    cache = Growing(tiny, prompts[:1]).cache
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert kept == cached_numbers(tiny.network) * len(prompts[0])


def test_samples_are_reproducible_and_differ_by_seed(tiny, prompts):
    first, again, other = (sampled(tiny, prompts, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [answer.tokens for answer in first] != [answer.tokens for answer in other]


def test_a_model_whose_logits_are_no_numbers_still_answers(tiny, prompts):
    """The loop looks at the loss; an answer that cannot be made would hide what has happened."""
    with torch.no_grad():
        tiny.parameters()[0].fill_(math.nan)
    assert all(0 <= token < 258 for answer in sampled(tiny, prompts) for token in answer.tokens)


def test_samples_leave_torchs_own_generator_alone(tiny, prompts):
    state = torch.get_rng_state()
    sampled(tiny, prompts)
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_logprobs_are_those_of_the_sampled_tokens_at_temperature_one(tiny, prompts):
    for prompt, answer in zip(prompts, sampled(tiny, prompts, temperature=2.0), strict=True):
        reference = reference_logprobs(tiny, prompt, answer)
        expected = reference.gather(1, torch.tensor(answer.tokens)[:, None]).squeeze(1).tolist()
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_models_distribution(tiny, prompts, temperature):
    """4000 first tokens against the probabilities: no top-k, no top-p, the temperature as said."""
    count = 4000
    answers = sampled(tiny, [prompts[0]] * count, temperature=temperature, new=1)
    seen = torch.bincount(torch.tensor([answer.tokens[0] for answer in answers]), minlength=258) / count
    logits = tiny.network(input_ids=torch.tensor([prompts[0]])).logits[0, -1]
    expected = torch.softmax(logits / temperature, -1)
    assert (seen - expected).abs().sum() / 2 < 0.11  # total variation; sampling noise alone gives about 0.07 here
    assert (seen > 0).sum() > 40


@torch.no_grad()
def test_samples_come_from_the_current_weights(tiny, prompts):
    before = sampled(tiny, prompts)
    tiny.parameters()[0].mul_(1.5)
    after = sampled(tiny, prompts)
    assert [answer.tokens for answer in before] != [answer.tokens for answer in after]


@torch.no_grad()
def test_a_row_that_has_ended_is_dropped_and_keeps_its_end(tiny, prompts):
    """The end of turn is made likely, so that rows end at different places; the rest must not notice."""
    end = end_soon(tiny)
    answers = sampled(tiny, prompts * 4, new=20)
    lengths = {len(answer.tokens) for answer in answers}
    assert len(lengths) > 2
    for prompt, answer in zip(prompts * 4, answers, strict=True):
        assert end not in answer.tokens[:-1]
        assert answer.finished == (answer.tokens[-1] == end)
        assert answer.finished or len(answer.tokens) == 20
        reference = reference_logprobs(tiny, prompt, answer)
        expected = reference.gather(1, torch.tensor(answer.tokens)[:, None]).squeeze(1).tolist()
        assert answer.logprobs == pytest.approx(expected, abs=1e-4)
