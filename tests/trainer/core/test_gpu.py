"""On a GPU: what it computes is what a CPU computes, twice the same, and a recorded decode step is the step itself.

`make gpu`; skipped where there is no NVIDIA GPU.
"""

from __future__ import annotations

import contextlib
import logging

import pytest
import torch

from skill_contract.spec import Divergence
from skill_trainer import device as devices
from skill_trainer.curriculum import Curriculum
from skill_trainer.decoding import Growing, Recorded
from skill_trainer.decoding_weights import decoding_weights
from skill_trainer.device import keep_order_if_possible, prepare
from skill_trainer.divergence import MEASURES, Head, chunked_loss, cross_entropy, teacher_target
from skill_trainer.loop import make_optimizer, train
from skill_trainer.model import LanguageModel
from skill_trainer.objective import Item, make_objective
from skill_trainer.rollout import greedy
from skill_trainer.schedule import generator
from tests.trainer.core.conftest import CPU, examples, method, stored_in_bf16
from tests.trainer.core.test_checkpoint import METHODS, Attempt
from tests.trainer.core.test_rollout import end_soon, sampled
from tests.trainer.core.test_train import ADAPTATIONS, publish_in_bf16

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")]

GPU = torch.device("cuda", 0)
R, D, V = 600, 64, 5000


@pytest.fixture(autouse=True)
def as_in_a_step():
    prepare()
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.fixture
def on_gpu(tiny_llama_dir) -> LanguageModel:
    return LanguageModel.load(tiny_llama_dir, GPU)


def one_step(model, settings, answers):
    """Returns the report of one step on given answers, and the model's gradients in it."""
    objective, batch, reports, kept = make_objective(settings, model), examples(model, settings), [], []
    objective.items = lambda chosen, rows, student, step: [Item(each, answers[each.id]) for each in chosen]
    optimizer = make_optimizer(model)
    optimizer.register_step_pre_hook(lambda *_: kept.extend(each.grad.double().cpu() for each in model.parameters()))
    train(
        model, objective, optimizer, Curriculum(batch), settings, done=0, save_every=9, on_step=reports.append,
        save=lambda _: None, stop=lambda: False,
    )  # fmt: skip
    return reports[0], torch.cat([each.flatten() for each in kept])


@pytest.mark.parametrize("divergence", [*Divergence, "SFT"])
def test_a_step_is_that_of_a_cpu(tiny_llama_dir, tiny, on_gpu, divergence, monkeypatch):
    """In fp32 to its roundings, in bf16 to those of bf16."""
    kind = {"type": "SFT"} if divergence == "SFT" else {"sdft": {"divergence": divergence}}
    settings = method(steps=1, batchSize=5, optimizer={"maxGradNorm": 1e9}, **kind)
    answers = {f"r{number}": tuple(range(40, 47 + number)) for number in range(5)}
    report, gradient = one_step(tiny, settings, answers)
    in_bf16, gradient_in_bf16 = one_step(on_gpu, settings, answers)
    assert in_bf16.loss == pytest.approx(report.loss, rel=0.02)
    assert torch.cosine_similarity(gradient_in_bf16, gradient, dim=0) > 0.999

    again = LanguageModel.load(tiny_llama_dir, GPU)
    for module in ("loop", "objective", "model"):
        monkeypatch.setattr(f"skill_trainer.{module}.precision", lambda _: contextlib.nullcontext())
    in_fp32, gradient_in_fp32 = one_step(again, settings, answers)
    assert in_fp32.loss == pytest.approx(report.loss, rel=1e-5)
    torch.testing.assert_close(gradient_in_fp32, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("divergence", [*Divergence, None])
def test_loss_in_bf16_is_near_that_in_fp64(divergence):
    """The products alone are in bf16: logits, probabilities and sums are fp32."""
    numbers = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=numbers, dtype=torch.float64)  # noqa: E731
    hidden, weight, other, shares = draw(R, D), draw(V, D) / 4, draw(R, D), draw(R).abs() / R
    tokens = torch.randint(V, (R,), generator=numbers)

    def loss_and_gradients(device, dtype):
        leaves = [each.to(device, dtype, copy=True).requires_grad_() for each in (hidden, weight)]
        head = Head(leaves[1])
        with devices.precision(device) if dtype == torch.float32 else contextlib.nullcontext():
            target = teacher_target(other.to(device, dtype), Head(weight.to(device, dtype)), 1.0)
            token_R = tokens.to(device)
            sums = chunked_loss(
                leaves[0], head, target if divergence else token_R.__getitem__, shares.to(device, dtype),
                MEASURES[divergence] if divergence else cross_entropy,
            )  # fmt: skip
        sums.loss.backward()
        return sums.loss.item(), [each.grad.double().cpu() for each in leaves]

    expected, gradients = loss_and_gradients(CPU, torch.float64)
    got, gradients_in_bf16 = loss_and_gradients(GPU, torch.float32)
    assert got == pytest.approx(expected, rel=2e-3)
    for one, other_one in zip(gradients_in_bf16, gradients, strict=True):
        assert torch.linalg.vector_norm(one - other_one) < 0.01 * torch.linalg.vector_norm(other_one)


def test_a_recorded_step_gives_the_same_answers(on_gpu, monkeypatch):
    prompts = [example.student for example in examples(on_gpu, method())] * 3
    end_soon(on_gpu)
    made = []
    recorded = Recorded._recorded
    monkeypatch.setattr(Recorded, "_recorded", lambda self: made.append(recorded(self)) or made[-1])
    played = sampled(on_gpu, prompts, new=20)
    assert sampled(on_gpu, prompts, new=20) == played
    assert [step.__name__ for step in made] == ["replay", "replay"]
    assert on_gpu.records
    monkeypatch.setattr("skill_trainer.rollout.decoding", lambda model, prompts, _: Growing(model, prompts))
    launched = sampled(on_gpu, prompts, new=20)
    assert len({len(answer.tokens) for answer in played}) > 1, "the test must meet a prompt that ends early"
    # In bf16 another shape rounds differently, and then draws differently: most answers are the same, and how
    # probable the first tokens were.
    same = [one.tokens == other.tokens for one, other in zip(played, launched, strict=True)]
    assert sum(same) >= len(same) * 0.6
    for one, other in zip(played, launched, strict=True):
        assert one.logprobs[0] == pytest.approx(other.logprobs[0], abs=0.05)


@torch.no_grad()
@pytest.mark.parametrize("copied", [True, False])
def test_answers_are_chosen_by_the_logits_of_the_loss(on_gpu, copied):
    """From the bf16 copy of the output layer, and without one."""
    prompts, seen = [example.student for example in examples(on_gpu, method())], []
    on_gpu.network.base_model.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state[:, -1]))
    head = on_gpu.network.get_output_embeddings()
    with decoding_weights(on_gpu.network, head) if copied else contextlib.nullcontext():
        logits = Growing(on_gpu, prompts).logits_AV
    with devices.precision(GPU):
        expected = on_gpu.head.log_probs(seen[-1], 1.0)
    torch.testing.assert_close(torch.log_softmax(logits, -1), expected, rtol=0, atol=1e-5)
    assert not torch.equal(logits, logits.bfloat16().float()), "the test must tell the two apart"


@torch.no_grad()
def test_keys_are_kept_as_narrow_as_values(on_gpu):
    cache = Growing(on_gpu, [example.student for example in examples(on_gpu, method())]).cache
    assert {(layer.keys.dtype, layer.values.dtype) for layer in cache.layers} == {(torch.bfloat16, torch.bfloat16)}


def test_a_model_whose_step_cannot_be_recorded_answers_all_the_same(on_gpu, caplog):
    prompts = [example.student for example in examples(on_gpu, method())]
    expected = greedy(on_gpu, prompts, max_new_tokens=12)
    asked = []
    on_gpu.network.base_model.register_forward_hook(lambda _, __, out: asked.append(out[0].sum().item()))
    with caplog.at_level(logging.WARNING):
        answers = greedy(on_gpu, prompts, max_new_tokens=12)
    assert "kernel by kernel" in caplog.text
    assert len(asked) >= 11
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in expected]


def test_answers_are_the_same_twice(on_gpu):
    prompts = [example.student for example in examples(on_gpu, method())] * 7
    assert sampled(on_gpu, prompts, new=16) == sampled(on_gpu, prompts, new=16)
    state = torch.cuda.get_rng_state(GPU)
    sampled(on_gpu, prompts)
    assert torch.equal(torch.cuda.get_rng_state(GPU), state), "torch's own generator is left alone"
    assert generator(1, "test", 0).device.type == "cpu"


def test_an_operation_without_an_order_is_computed_all_the_same(on_gpu, caplog):
    """As in a mixture of experts, whose tokens are counted by such a one."""

    def counted(hidden):
        torch.histc(hidden.detach().float())

    on_gpu.network.base_model.register_forward_hook(lambda _, __, out: counted(out[0]))
    with caplog.at_level(logging.WARNING):
        keep_order_if_possible(on_gpu.rehearse)
    assert "resuming will not be exact" in caplog.text
    settings = method(steps=1)
    report, _ = one_step(on_gpu, settings, {f"r{number}": tuple(range(40, 50)) for number in range(5)})
    assert report.loss > 0


def test_publishing_needs_no_second_model(on_gpu, tiny_llama_dir, tmp_path):
    torch.cuda.reset_peak_memory_stats(GPU)
    before = torch.cuda.memory_allocated(GPU)
    on_gpu.save(tmp_path / "new", stored_in_bf16(tmp_path / "parent", tiny_llama_dir))
    most = max(weight.numel() for weight in on_gpu.parameters())
    assert torch.cuda.max_memory_allocated(GPU) - before <= 2 * most + 512  # a weight on its way, as the GPU rounds up


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_the_whole_step_publishes_what_a_cpu_can_serve(config, run_train, tiny_llama_dir, tmp_path, name):
    """Downloads, measures, trains, saves, measures again and publishes."""
    published, _ = publish_in_bf16(config, run_train, tiny_llama_dir, tmp_path, ADAPTATIONS[name], GPU)
    prompts = [example.student for example in examples(LanguageModel.load(published, CPU), method())]
    assert all(answer.tokens for answer in greedy(LanguageModel.load(published, CPU), prompts, max_new_tokens=8))


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("lora")])
def test_what_lies_beside_an_adapter_stays_as_narrow_as_it_is_stored(tiny_llama_dir, tmp_path, monkeypatch, name):
    """Half of the memory, and the same bytes as from weights in fp32."""
    parent = stored_in_bf16(tmp_path / "parent", tiny_llama_dir)
    narrow = Attempt(parent, METHODS[name], tmp_path / "narrow", device=GPU)
    types = {weight.dtype for weight_name, weight in narrow.model.named_parameters().items() if "base" in weight_name}
    assert types == {torch.bfloat16}
    monkeypatch.setattr("skill_trainer.model.keep_narrow", lambda _: None)
    wide = Attempt(parent, METHODS[name], tmp_path / "wide", device=GPU)
    assert {weight.dtype for weight in wide.model.parameters()} == {torch.float32}
    assert narrow.run() == wide.run()


@pytest.mark.parametrize("name", METHODS)
def test_resuming_gives_the_same_bytes(tiny_llama_dir, tmp_path, name):
    settings = METHODS[name]
    whole = Attempt(tiny_llama_dir, settings, tmp_path / "whole", device=GPU).run()
    again = Attempt(tiny_llama_dir, settings, tmp_path / "again", device=GPU).run()
    assert again == whole
    folder = tmp_path / "from-2"
    folder.mkdir()
    (folder / "2").symlink_to(tmp_path / "whole" / "2")
    assert Attempt(tiny_llama_dir, settings, folder, resume=2, device=GPU).run() == whole
