"""One step of training and many: what the loss is made of, what changes nothing, and what ends a run."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from skill_contract.spec import Divergence, Optimizer, TeacherWeights
from skill_trainer.curriculum import Curriculum
from skill_trainer.divergence import MEASURES
from skill_trainer.errors import Diverged, Preempted
from skill_trainer.loop import make_optimizer, parts, tokens_beside, train
from skill_trainer.model import LanguageModel
from skill_trainer.monitors.in_steps import SAMPLER_GAP
from skill_trainer.objective import Item, Sdft, make_objective
from skill_trainer.schedule import batch_indices, learning_rate
from tests.trainer.core.conftest import CPU, examples, method


def run(model, settings, *, done=0, stop=lambda: False, part_tokens=None, objective=None, batch=None):
    """Trains and returns the reports of all steps."""
    reports = []
    train(
        model, objective or make_objective(settings, model), make_optimizer(model),
        Curriculum(batch or examples(model, settings)), settings, done=done, save_every=100,
        on_step=reports.append, save=lambda step: None, stop=stop, part_tokens=part_tokens,
    )  # fmt: skip
    return reports


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("divergence", list(Divergence))
def test_loss_is_zero_when_the_teacher_reads_what_the_student_reads(tiny, divergence):
    settings = method(sdft={"divergence": divergence}, steps=1)
    same = [dataclasses.replace(example, teacher=example.student) for example in examples(tiny, settings)]
    before = weights(tiny).clone()
    (report,) = run(tiny, settings, batch=same)
    assert abs(report.loss) < 1e-6
    assert report.gradient_norm < 1e-5
    assert report.entropy > 1
    assert (weights(tiny) - before).abs().max() < 2 * settings.optimizer.learning_rate


def slow_loss(model, teacher, items, divergence, skip):
    """The definition, sequence by sequence over whole logits, with transformers' own forward pass."""
    losses = []
    for item in items:
        logits = []
        for network, prompt in ((model.network, item.example.student), (teacher.network, item.example.teacher)):
            tokens = torch.tensor([[*prompt, *item.answer]])
            out = network(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
            logits.append(torch.log_softmax(out.double(), -1))
        s, t = logits
        per_token = MEASURES[divergence](s, t)[0][skip:]
        losses.append(per_token.mean() if len(per_token) else torch.zeros((), dtype=torch.float64))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("divergence", list(Divergence))
def test_loss_of_a_step_is_the_definition(tiny, divergence):
    """Answers of different lengths, one of them shorter than what is skipped, prompts of different lengths."""
    settings = method(sdft={"divergence": divergence}, steps=1, batchSize=5)
    objective = Sdft(settings, tiny)
    batch = examples(tiny, settings)
    lengths = [8, 2, 5, 4, 7]
    answers = [tuple(range(40, 40 + length)) for length in lengths]
    order = batch_indices(0, 5, 5, settings.seed)
    items = {batch[index].id: Item(batch[index], answers[index]) for index in order}
    objective.items = lambda chosen, rows, student, step: [items[example.id] for example in chosen]
    expected = slow_loss(tiny, objective.teacher.model, list(items.values()), divergence, settings.sdft.skip_tokens)
    (report,) = run(tiny, settings, objective=objective, batch=batch)
    assert report.loss == pytest.approx(expected.item(), rel=1e-4)
    assert report.empty_share == pytest.approx(0.2)
    assert report.mean_length == pytest.approx(5.2)


@pytest.mark.parametrize("kind", ["SDFT", "SFT"])
def test_cutting_the_batch_into_parts_changes_nothing(tiny_llama_dir, tiny, kind):
    settings = method(type=kind, steps=1)
    whole, cut = tiny, LanguageModel.load(tiny_llama_dir, CPU)
    (one,) = run(whole, settings, part_tokens=10**6)
    (many,) = run(cut, settings, part_tokens=1)
    assert one.loss == pytest.approx(many.loss, rel=1e-5)
    assert one.gradient_norm == pytest.approx(many.gradient_norm, rel=1e-4)
    assert one.top_share == pytest.approx(many.top_share, rel=1e-4), "rows are ranked once, over the whole batch"


def test_what_is_trained_on_has_the_probabilities_it_was_sampled_with(tiny_llama_dir, tiny):
    """At any temperature, and after each step: the sampler never has the weights of the step before."""
    for temperature in (1.0, 0.7):
        model = LanguageModel.load(tiny_llama_dir, CPU)
        for report in run(model, method(rollout={"maxNewTokens": 8, "temperature": temperature})):
            assert report.sampler_gap < 1e-5
    (sft, *_) = run(tiny, method(type="SFT"))
    assert sft.sampler_gap is None


def test_a_sampler_with_the_weights_of_before_is_seen(tiny_llama_dir, tiny):
    settings = method(steps=6, optimizer={"learningRate": 0.02, "warmupSteps": 0})
    stale, objective = LanguageModel.load(tiny_llama_dir, CPU), Sdft(settings, tiny)
    sampled = objective.items
    objective.items = lambda chosen, rows, student, step: sampled(chosen, rows, stale, step)
    gaps = [report.sampler_gap for report in run(tiny, settings, objective=objective)]
    assert gaps[0] < 1e-5, "nothing has been learned yet"
    assert gaps[-1] > SAMPLER_GAP


def test_parts_hold_all_that_carry_loss_and_keep_the_limit(tiny):
    settings = method()
    objective = Sdft(settings, tiny)
    items = [Item(example, (1,) * (2 + number * 2)) for number, example in enumerate(examples(tiny, settings))]
    shared = objective.shared(items)
    assert shared > 0, "the chat template begins alike"
    limit = 2 * max(objective.longest(item) for item in items) - shared
    cut = list(parts(items, objective, limit))
    assert sorted(item.example.id for part in cut for item in part) == ["r1", "r2", "r3", "r4"]  # r0 is too short
    assert len(cut) > 1
    assert max(map(len, cut)) > 1
    tiny.packs = False
    assert Sdft(settings, tiny).shared(items) == 0, "a model that pads computes it again and again"
    assert all(shared + sum(tokens_beside(objective.longest(item), shared) for item in part) <= limit for part in cut)


def test_a_record_of_weight_two_counts_as_two_records(tiny_llama_dir, tiny):
    settings = method(type="SFT", steps=1, batchSize=2)
    a, b = examples(tiny, settings)[:2]
    (weighted,) = run(tiny, settings, batch=[dataclasses.replace(a, weight=2.0), b])
    other = LanguageModel.load(tiny_llama_dir, CPU)
    (repeated,) = run(other, method(type="SFT", steps=1, batchSize=3), batch=[a, a, b])
    assert weighted.loss == pytest.approx(repeated.loss, rel=1e-5)


def test_a_batch_without_any_loss_changes_no_weight(tiny):
    settings = method(sdft={"skipTokens": 8}, steps=2)
    before = weights(tiny).clone()
    reports = run(tiny, settings)
    assert [report.empty_share for report in reports] == [1.0, 1.0]
    assert torch.equal(weights(tiny), before)


@pytest.mark.parametrize("kind", ["SDFT", "SFT"])
def test_not_a_number_ends_the_run_before_it_reaches_the_weights(tiny, kind):
    settings = method(type=kind)
    objective = make_objective(settings, tiny)
    before = weights(tiny).clone()
    measure = objective.measure
    objective.measure = lambda s, t: tuple(value * math.nan for value in measure(s, t))
    with pytest.raises(Diverged, match=r"step 1: the loss is nan.*learningRate"):
        run(tiny, settings, objective=objective)
    assert torch.equal(weights(tiny), before)


def test_stop_saves_before_it_raises(tiny):
    settings = method()
    saved = []
    with pytest.raises(Preempted, match="step 2 of 4"):
        train(
            tiny, make_objective(settings, tiny), make_optimizer(tiny), Curriculum(examples(tiny, settings)), settings,
            done=0, save_every=100, on_step=lambda report: saved.append(f"step {report.step}"), save=saved.append,
            stop=lambda: len(saved) == 2,
        )  # fmt: skip
    assert saved == ["step 1", "step 2", 2]


def test_sft_learns_its_demonstrations(tiny):
    """The toy's toy: a model of nine thousand weights learns five sentences by heart."""
    settings = method(type="SFT", steps=60, batchSize=5, optimizer={"learningRate": 0.02, "warmupSteps": 2})
    reports = run(tiny, settings)
    assert reports[-1].loss < 0.3 * reports[0].loss


def test_sdft_comes_nearer_to_its_teacher(tiny):
    settings = method(
        steps=60, batchSize=10, optimizer={"learningRate": 0.003, "warmupSteps": 2}, rollout={"maxNewTokens": 16},
        sdft={"teacher": {"weights": TeacherWeights.FROZEN}, "skipTokens": 0},
    )  # fmt: skip
    losses = [report.loss for report in run(tiny, settings)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_learning_rate_warms_up_and_falls_as_a_cosine():
    optimizer = Optimizer(learning_rate=1.0, warmup_steps=3)
    rates = [learning_rate(step, 13, optimizer) for step in range(13)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[8] == pytest.approx(0.5)
    assert rates == [*rates[:4], *sorted(rates[4:], reverse=True)]
    assert 0 < rates[-1] < 0.05


def test_a_short_run_reaches_its_learning_rate():
    """The warm-up takes half of the steps at most; runs of twice as many steps and more have all of theirs."""
    optimizer = Optimizer(learning_rate=1.0, warmup_steps=10)
    assert [learning_rate(step, 4, optimizer) for step in range(4)] == pytest.approx([1 / 3, 2 / 3, 1.0, 0.5])
    assert learning_rate(0, 1, optimizer) == 1.0
    for total in (20, 24, 400):
        assert [learning_rate(step, total, optimizer) for step in range(11)] == [(step + 1) / 11 for step in range(11)]


def test_constant_schedule_stays():
    optimizer = Optimizer(learning_rate=0.5, warmup_steps=0, schedule="Constant")
    assert {learning_rate(step, 9, optimizer) for step in range(9)} == {0.5}


def test_a_batch_larger_than_the_data_repeats_them():
    assert sorted(batch_indices(0, 6, 3, seed=1)) == [0, 0, 1, 1, 2, 2]
