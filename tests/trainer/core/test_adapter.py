"""Low-rank adapters: what is trained, what stays, what the teacher is, and that the version is what was trained."""

from __future__ import annotations

import copy
import json

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from skill_contract.manifest import Manifest
from skill_contract.outcome import Result
from skill_contract.spec import LoRA, Teacher, TeacherWeights
from skill_store.repository import Repository
from skill_trainer.adapter import AdapterSize, keep_narrow
from skill_trainer.curriculum import Curriculum
from skill_trainer.errors import ConfigInvalid, ModelInvalid
from skill_trainer.inherited import MOST_RANK, has_adapters, inherit
from skill_trainer.loop import make_optimizer, train
from skill_trainer.memory import FP32, Part, Shape, estimate_memory, state_numbers
from skill_trainer.model import LanguageModel, outline
from skill_trainer.objective import make_objective
from skill_trainer.steps.check import check
from skill_trainer.teacher import make_teacher
from tests.trainer.core.conftest import CPU, examples, method, stored_in_bf16

SPEC = LoRA(rank=3, alpha=6)
TOKENS = torch.tensor([list(range(5, 29))])
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture
def adapted(tiny) -> LanguageModel:
    """The tiny model with an adapter that has learned something: B is not zero."""
    tiny.adapt(SPEC, seed=17)
    stir(tiny, 1)
    return tiny


def stir(model: LanguageModel, seed: int) -> None:
    """Moves all trained weights, as a step would."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.trained_parameters().values():
            weight.add_(torch.randn(weight.shape, generator=draw), alpha=0.1)


@torch.no_grad()
def logits(model: LanguageModel) -> torch.Tensor:
    return model.network(input_ids=TOKENS).logits


def rows(model: LanguageModel) -> torch.Tensor:
    return model.hidden_rows([TOKENS[0].tolist()], [0])


def run(model: LanguageModel, settings):
    """Trains a model that is adapted already; returns the objective."""
    objective = make_objective(settings, model)
    train(
        model, objective, make_optimizer(model), Curriculum(examples(model, settings)), settings, done=0,
        save_every=100, on_step=lambda report: None, save=lambda step: None, stop=lambda: False,
    )  # fmt: skip
    return objective


def test_only_the_adapter_is_trained_and_begins_as_no_change(tiny):
    before, names = logits(tiny), set(tiny.named_parameters())
    tiny.adapt(SPEC, seed=17)
    trained = tiny.trained_parameters()
    assert len(trained) == 2 * 2 * len(LAYERS)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained} == set(LAYERS)
    assert all(weight.dtype == torch.float32 for weight in trained.values())
    assert len(tiny.named_parameters()) == len(names) + len(trained)
    assert torch.equal(logits(tiny), before)


def test_the_draw_is_the_seeds_whatever_the_process_did_before(tiny_llama_dir):
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed)
        model = LanguageModel.load(tiny_llama_dir, CPU)
        model.adapt(SPEC, seed=17 if seed < 9 else seed)
        return model.trained_parameters()

    one, same, other = drawn(1), drawn(2), drawn(9)
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name, weight in one.items():
        assert bool(weight.any()) == ("lora_A" in name)
        assert torch.equal(weight, other[name]) == ("lora_B" in name)
        if "lora_A" in name:
            assert 0.7 < weight.abs().max() * weight.shape[1] ** 0.5 <= 1


def test_training_moves_the_adapter_alone(tiny):
    tiny.adapt(SPEC, seed=17)
    start = {name: weight.detach().clone() for name, weight in tiny.named_parameters().items()}
    run(tiny, method(adaptation={"type": "LoRA"}, sdft={"teacher": {"weights": "EMA"}}))
    for name, weight in tiny.named_parameters().items():
        assert torch.equal(weight, start[name]) == ("lora_" not in name), name
        assert ("lora_" in name) or weight.grad is None


def test_gradients_are_the_dense_ones_through_the_product(adapted):
    """dL/dB = s dL/dW A^T and dL/dA = s B^T dL/dW, where dL/dW is the merged model's."""
    dense = LanguageModel(adapted.adapter.plain_copy(), adapted.tokens)
    dense.network.requires_grad_(requires_grad=True)
    draw = torch.randn(rows(dense).shape, generator=torch.Generator().manual_seed(3))
    for model in (adapted, dense):
        (rows(model) * draw).sum().backward()
    scale, weights = SPEC.alpha / SPEC.rank, adapted.named_parameters()
    for name, weight in dense.named_parameters().items():
        plain = name.removesuffix(".weight")
        a, b = (weights.get(f"{plain}.lora_{kind}.default.weight") for kind in "AB")
        if a is not None:
            torch.testing.assert_close(b.grad, scale * weight.grad @ a.T, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(a.grad, scale * b.T @ weight.grad, rtol=1e-4, atol=1e-4)


def test_gradient_equals_finite_differences(adapted):
    """Along a random direction; roughly, because the model's norms are fp32 whatever its weights are."""
    adapted.network.double()
    draw = torch.Generator().manual_seed(3)
    share = torch.randn(rows(adapted).shape, generator=draw, dtype=torch.float64)
    weights = list(adapted.trained_parameters().values())
    directions = [torch.randn(weight.shape, generator=draw, dtype=torch.float64) for weight in weights]

    def loss_at(distance: float) -> torch.Tensor:
        torch._foreach_add_([weight.data for weight in weights], directions, alpha=distance)
        loss = (rows(adapted) * share).sum()
        torch._foreach_add_([weight.data for weight in weights], directions, alpha=-distance)
        return loss

    gradients = torch.autograd.grad(loss_at(0), weights)
    slope = sum((gradient * direction).sum().item() for gradient, direction in zip(gradients, directions, strict=True))
    assert slope == pytest.approx((loss_at(1e-4) - loss_at(-1e-4)).item() / 2e-4, rel=1e-3)


def test_merged_is_what_was_trained_and_a_plain_model(adapted, tiny_llama_dir, tmp_path):
    before = logits(adapted)
    adapted.round_to_stored(tiny_llama_dir)
    torch.testing.assert_close(logits(adapted), before, rtol=0, atol=1e-5)
    merged = {name: weight.clone() for name, weight in adapted.named_parameters().items()}
    adapted.round_to_stored(tiny_llama_dir)
    assert all(torch.equal(weight, merged[name]) for name, weight in adapted.named_parameters().items())
    adapted.save(tmp_path / "version", tiny_llama_dir)
    again = LanguageModel.load(tmp_path / "version", CPU)
    assert again.named_parameters().keys() == LanguageModel.load(tiny_llama_dir, CPU).named_parameters().keys()
    assert torch.equal(logits(again), logits(adapted))


@pytest.mark.parametrize("parent_in_bf16", [True, False])
def test_what_is_kept_narrow_publishes_the_same_bytes(tiny_llama_dir, tmp_path, parent_in_bf16):
    """Where the parent is stored so; a parent in fp32 would lose digits, which is why it is not kept so."""
    parent = stored_in_bf16(tmp_path / "parent", tiny_llama_dir) if parent_in_bf16 else tiny_llama_dir
    published = []
    for narrow in (False, True):
        model = LanguageModel.load(parent, CPU)
        if narrow:
            keep_narrow(model.network)
        model.adapt(SPEC, seed=17)
        stir(model, 1)
        types = {name: weight.dtype for name, weight in model.named_parameters().items()}
        assert {each for name, each in types.items() if "lora_" in name or "base_layer" not in name} == {torch.float32}
        assert {each for name, each in types.items() if "base_layer" in name} == {
            torch.bfloat16 if narrow else torch.float32
        }
        effective = {name: weight.clone() for name, weight in model.effective_weights()}
        assert {weight.dtype for weight in effective.values()} == {torch.float32}
        model.round_to_stored(parent)
        model.save(tmp_path / str(narrow), parent)
        published.append((effective, (tmp_path / str(narrow) / "model.safetensors").read_bytes()))
    (one, bytes_of_one), (other, bytes_of_other) = published
    assert all(torch.equal(weight, other[name]) for name, weight in one.items()) == parent_in_bf16
    assert (bytes_of_one == bytes_of_other) == parent_in_bf16


def test_on_a_gpu_what_lies_beside_an_adapter_is_half_as_large_where_it_is_stored_so(tiny_llama_dir, tmp_path):
    in_fp32, in_bf16 = (
        Shape.of(outline(folder)) for folder in (tiny_llama_dir, stored_in_bf16(tmp_path / "bf16", tiny_llama_dir))
    )
    size = AdapterSize.of(outline(tiny_llama_dir), SPEC)
    assert (in_fp32.narrow, in_bf16.narrow) == (0, size.adapted)
    part, settings = Part(100, 0, 100, 50), method(adaptation={"type": "LoRA"})
    wide, narrow = (
        estimate_memory(shape, part, method=settings, adapter=size, gpu=True) for shape in (in_fp32, in_bf16)
    )
    assert wide.state - narrow.state == 2 * size.adapted
    assert wide.copies - narrow.copies == wide.answers - narrow.answers == 2 * size.adapted
    for adapter, gpu in ((size, False), (None, True)):
        one, other = (
            estimate_memory(shape, part, method=settings, adapter=adapter, gpu=gpu) for shape in (in_fp32, in_bf16)
        )
        assert one == other


def test_frozen_teacher_is_the_parent_without_a_copy(adapted, tiny_llama_dir):
    parent, student = LanguageModel.load(tiny_llama_dir, CPU), rows(adapted)
    teacher = make_teacher(Teacher(weights=TeacherWeights.FROZEN), adapted)
    taught = teacher.model.hidden_rows([TOKENS[0].tolist()], [0])
    assert torch.equal(taught, rows(parent))
    assert not torch.allclose(taught, student)
    assert torch.equal(rows(adapted), student), "the adapter is on again"
    assert all(weight.requires_grad for weight in adapted.trained_parameters().values())
    assert len(adapted.trained_parameters()) == 2 * 2 * len(LAYERS)
    assert teacher.model.network is adapted.network
    assert teacher.state() == {}


def test_adapter_is_on_again_after_a_teacher_that_failed(adapted):
    teacher, student = make_teacher(Teacher(weights=TeacherWeights.FROZEN), adapted), rows(adapted)
    with pytest.raises(IndexError):
        teacher.model.hidden_rows([[10**6]], [0])
    assert torch.equal(rows(adapted), student)


def test_ema_is_of_the_effective_update_not_of_its_factors(adapted):
    """phi_n = sum over steps of rate (1 - rate)^(n-k) W_k, each W_k = W + s B_k A_k computed in fp64."""
    rate, scale, steps = 0.1, SPEC.alpha / SPEC.rank, 12
    name = "model.layers.1.mlp.down_proj"

    def effective() -> torch.Tensor:
        weights = {name: weight.detach().double() for name, weight in adapted.named_parameters().items()}
        product = weights[f"{name}.lora_B.default.weight"] @ weights[f"{name}.lora_A.default.weight"]
        return weights[f"{name}.base_layer.weight"] + scale * product

    teacher = make_teacher(Teacher(weights=TeacherWeights.EMA, ema_rate=rate), adapted)
    expected = effective()
    factors = [weight.detach().double() for key, weight in adapted.named_parameters().items() if f"{name}.lora" in key]
    for step in range(steps):
        stir(adapted, step)
        teacher.follow(adapted)
        expected = (1 - rate) * expected + rate * effective()
        now = [weight.detach().double() for key, weight in adapted.named_parameters().items() if f"{name}.lora" in key]
        factors = [(1 - rate) * old + rate * new for old, new in zip(factors, now, strict=True)]
    mine = teacher.state()[f"{name}.weight"]
    torch.testing.assert_close(mine.double(), expected, rtol=0, atol=1e-6)
    lagging = adapted.named_parameters()[f"{name}.base_layer.weight"].double() + scale * factors[1] @ factors[0]
    assert (lagging - expected).abs().max() > 1e-2, "the average of the factors is another one"
    plain = copy.deepcopy(teacher.model.network)
    assert torch.equal(rows(teacher.model), rows(LanguageModel(plain, adapted.tokens)))


def test_averaged_teacher_owns_no_more_than_the_adapted_weights(tiny):
    tiny.adapt(LoRA(rank=2, target_modules=("q_proj", "down_proj")), seed=1)
    teacher = make_teacher(Teacher(weights=TeacherWeights.EMA), tiny)
    students = {weight.data_ptr() for weight in tiny.parameters()}
    own = {name for name, weight in teacher.model.named_parameters().items() if weight.data_ptr() not in students}
    assert own == set(teacher.state())
    assert {name.split(".")[-2] for name in own} == {"q_proj", "down_proj"}
    assert not any(weight.requires_grad for weight in teacher.model.parameters())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("q_proj", "qkv"), r"targetModules: 'qkv' is no linear layer of LlamaForCausalLM, .* down_proj, gate_proj"),
        (("lm_head",), "'lm_head' is no linear layer .* or is its output head"),
        (("embed_tokens",), "'embed_tokens' is no linear layer"),
        (("all-linear", "q_proj"), "'all-linear' is no linear layer .* write all-linear alone"),
        (("proj",), "'proj' is no linear layer"),
    ],
)
def test_modules_that_the_model_has_not_are_refused_before_the_weights_are_loaded(config, names, message):
    adaptation = {"type": "LoRA", "lora": {"targetModules": list(names)}}
    with pytest.raises(ConfigInvalid, match=message):
        check(config(method=method(adaptation=adaptation).dump()))


def test_an_adapter_is_no_base_model(tiny_llama_dir, tmp_path):
    """The library would otherwise follow its configuration to another model."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_llama_dir)}))
    with pytest.raises(ModelInvalid, match=r"is an adapter .*: merge it into its base model first"):
        LanguageModel.load(tmp_path, CPU)


def test_memory_counts_the_adapter_alone(tiny_llama_dir):
    size = AdapterSize.of(outline(tiny_llama_dir), SPEC)
    inputs_and_outputs = 2 * (2 * (16 + 16) + 2 * (16 + 8) + 3 * (16 + 32))
    assert size.trained == 3 * inputs_and_outputs
    assert size.adapted == 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32)
    shape = Shape(
        num_parameters=10**6, outside=1600, products=10**6, layers=2, width=16, inner_width=32, vocabulary=100,
        cached=32,
    )  # fmt: skip
    frozen, ema, full = (
        method(sdft={"teacher": {"weights": weights}}, adaptation={"type": kind})
        for weights, kind in (("Frozen", "LoRA"), ("EMA", "LoRA"), ("EMA", "Full"))
    )
    assert state_numbers(shape, frozen, size) == (10**6 + 4 * size.trained, 3 * size.trained)
    assert state_numbers(shape, ema, size)[1] == 3 * size.trained + size.adapted
    assert state_numbers(shape, full, None) == (5 * 10**6, 4 * 10**6)
    part = Part(student_tokens=100, later_tokens=0, teacher_tokens=100, rows=50)
    with_adapter = estimate_memory(shape, part, method=frozen, adapter=size, gpu=False)
    without = estimate_memory(shape, part, method=full, gpu=False)
    assert without.state - with_adapter.state == FP32 * 3 * (10**6 - size.trained)
    assert (without.gradients, with_adapter.gradients) == (FP32 * 10**6, FP32 * size.trained)
    assert without.loss - with_adapter.loss == FP32 * 2 * 100 * 16  # the head's gradient


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21 asks for it
@pytest.mark.parametrize("weights", list(TeacherWeights))
@pytest.mark.parametrize("publish", ["Merged", "Adapter"])
def test_a_run_publishes_a_plain_version_and_the_adapter_if_asked(config, run_train, tmp_path, weights, publish):
    adaptation = {"type": "LoRA", "lora": {"rank": 3, "alpha": 6, "publish": publish}}
    settings = config(method=method(adaptation=adaptation, sdft={"teacher": {"weights": weights}}).dump())
    details = check(settings).details
    assert details["trainedParameters"] == 3 * 512
    outcome = run_train(settings)
    assert (outcome.outcome, outcome.reason) == (Result.SUCCEEDED, "Published")
    repository = Repository(settings.model.uri)
    parent, child = tmp_path / "parent", tmp_path / "child"
    repository.download(repository.head().ref, parent)
    repository.download(repository.resolve(outcome.version), child)
    published, origin = LanguageModel.load(child, CPU), LanguageModel.load(parent, CPU)
    assert (logits(published) - logits(origin)).abs().max() > 1e-3
    assert {path.name for path in (child / "adapter").glob("*")} == (
        {"adapter_config.json", "adapter_model.safetensors"} if publish == "Adapter" else set()
    )
    if publish == "Adapter":
        assert json.loads((child / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == (
            repository.head().version
        )
        engine = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(parent), child / "adapter")
        with torch.no_grad():
            torch.testing.assert_close(engine(input_ids=TOKENS).logits, logits(published), rtol=0, atol=1e-5)
        assert all("lora_" in name for name in load_file(child / "adapter/adapter_model.safetensors"))


def test_a_child_leaves_its_parents_adapter_behind(adapted, tiny_llama_dir, tmp_path):
    adapted.round_to_stored(tiny_llama_dir)
    adapted.save(tmp_path / "one", tiny_llama_dir)
    adapted.adapter.save(tmp_path / "one" / "adapter", "000000-abc")
    child = LanguageModel.load(tmp_path / "one", CPU)
    child.save(tmp_path / "two", tmp_path / "one")
    assert not (tmp_path / "two" / "adapter").exists()
    assert torch.equal(logits(child), logits(adapted))


# -- adapters for older weights --------------------------------------------------------------------------------------


def taught(model: LanguageModel, spec: LoRA, seed: int, folder, parent: str) -> None:
    """The model learns something with an adapter, which is saved and merged, as a version's is."""
    model.adapt(spec, seed)
    stir(model, seed)
    folder.mkdir()
    model.adapter.save(folder / "adapter", parent)
    model.adapter.merge()
    model.begin_anew()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21 asks for it
def test_adapter_for_the_weights_of_long_ago_does_what_all_since_did(tiny, tmp_path):
    """Three versions, of which not all change the same layers: engines with the base or the first take the last."""
    networks = [copy.deepcopy(tiny.network)]
    specs = (SPEC, LoRA(rank=2, alpha=3, target_modules=("q_proj", "up_proj")), LoRA(rank=4, alpha=4))
    for number, spec in enumerate(specs):
        taught(tiny, spec, number + 1, tmp_path / f"v{number + 1}", f"v{number}")
        networks.append(copy.deepcopy(tiny.network))
        if number:
            inherit(tmp_path / f"v{number}", tmp_path / f"v{number + 1}")
    assert sorted(path.name for path in (tmp_path / "v3/adapters").iterdir()) == ["v0", "v1"]
    for base, rank in ((0, 9), (1, 6)):
        place = tmp_path / f"v3/adapters/v{base}"
        assert json.loads((place / "adapter_config.json").read_text())["r"] == rank
        served = peft.PeftModel.from_pretrained(networks[base], str(place))
        with torch.no_grad():
            torch.testing.assert_close(served(input_ids=TOKENS).logits, logits(tiny), atol=1e-4, rtol=1e-4)


def test_adapters_of_a_rank_that_no_engine_takes_are_not_made(tiny, tmp_path):
    taught(tiny, LoRA(rank=MOST_RANK), 1, tmp_path / "v1", "v0")
    taught(tiny, SPEC, 2, tmp_path / "v2", "v1")
    inherit(tmp_path / "v1", tmp_path / "v2")
    assert not (tmp_path / "v2/adapters").exists()


def test_only_adapters_that_were_trained_here_are_inherited():
    method = {"adaptation": {"type": "LoRA", "lora": {"publish": "Adapter"}}}
    assert has_adapters(Manifest(files=(), sequence=1, method=method))
    assert not has_adapters(Manifest(files=(), sequence=0))
    assert not has_adapters(Manifest(files=(), sequence=1, method={"adaptation": {"type": "LoRA", "lora": {}}}))
