"""Loading and saving: only what is safe and plain."""

from __future__ import annotations

import copy
import json
import shutil
import tracemalloc
from array import array

import pytest
import torch
from safetensors.torch import load_file, save_file

from skill_trainer.errors import FormatMismatch, ModelInvalid
from skill_trainer.model import ChatTokenizer, LanguageModel
from skill_trainer.packing import common_prefix
from skill_trainer.stored_weights import stored_dtype
from tests.trainer.core.conftest import CPU, examples, gradients, method, rows_alone


@pytest.fixture
def folder(tiny_llama_dir, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return shutil.copytree(tiny_llama_dir, tmp_path / "model")


def edit(path, **changes):
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


@torch.no_grad()
def test_hidden_rows_equal_the_models_own_whatever_the_padding(tiny):
    sequences = [example.teacher for example in examples(tiny, method())]
    first = [len(sequence) - 3 for sequence in sequences]
    rows = tiny.hidden_rows(sequences, first).split(3)
    for sequence, got in zip(sequences, rows, strict=True):
        alone = tiny.network(input_ids=torch.tensor([sequence]), output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(got, alone[0, -3:], rtol=1e-4, atol=1e-5)


LONG = {"role": "system", "content": "You answer in few words, always politely, and never about the weather."}


def test_a_shared_beginning_changes_neither_hidden_states_nor_gradients(tiny):
    """Against sequence by sequence passes of the model's own, with gradients through the shared part."""
    sequences = [
        tiny.tokens.encode([LONG, {"role": "user", "content": text}]) for text in ("Hi", "Who is it?", "Hello you")
    ]
    first = [len(sequence) - 2 for sequence in sequences]
    _, shared = tiny.primed_cache(sequences, longest=min(first))
    assert shared > 64, "the test must meet the shared path"
    direction = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))

    together, alone = tiny.hidden_rows(sequences, first), rows_alone(tiny, sequences, first)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    both = (gradients(tiny, rows, direction) for rows in (together, alone))
    for got, expected in zip(*both, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("sequences", "shared"),
    [([[1, 2, 3], [1, 2, 4], [1, 2]], 2), ([[1], [2]], 0), ([[5, 6], [5, 6]], 2), ([[7, 8]], 2), ([[3, 1], [2, 1]], 0)],
)
def test_common_prefix(sequences, shared):
    assert common_prefix(sequences) == shared
    assert common_prefix([array("i", sequence) for sequence in sequences]) == shared


def test_a_common_prefix_is_found_without_a_copy_of_all_data():
    sequences = [array("i", range(last, last - 1000, -1)) for last in range(100_000, 100_200)]
    tracemalloc.start()
    assert common_prefix(sequences) == 0
    assert tracemalloc.get_traced_memory()[1] < 50_000
    tracemalloc.stop()


def test_pad_is_the_end_of_turn(tiny):
    """What the other tests rely on: a mask from `ids != pad` would lose the end of turn."""
    assert tiny.tokens.tokenizer.pad_token_id == tiny.tokens.end_of_turn[0]


def test_encoding_ends_where_the_answer_begins(tiny):
    tokens = tiny.tokens.encode([{"role": "user", "content": "Hi"}])
    text = tiny.tokens.tokenizer.decode(tokens)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tiny.tokens.decode(tiny.tokens.encode_answer("Hi there")) == "Hi there"
    assert tiny.tokens.encode_answer("Hi")[-1] == tiny.tokens.end_of_turn[0]


def test_all_ends_of_turn_of_the_generation_config_count(folder):
    edit(folder / "generation_config.json", eos_token_id=[5, 257])
    tokens = ChatTokenizer.load(folder)
    assert tokens.end_of_turn == (tokens.tokenizer.eos_token_id, 5)


def test_an_answer_ends_as_the_chat_template_ends_a_turn(folder):
    """As in Gemma and Phi: the tokenizer's own end is that of a text, a turn ends in another token."""
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    start = ChatTokenizer.load(folder).tokenizer.convert_tokens_to_ids("<|im_start|>")
    edit(folder / "tokenizer_config.json", **{**tokenizer, "eos_token": "<|im_start|>"})
    edit(folder / "generation_config.json", eos_token_id=[start, 5, 257])
    tokens = ChatTokenizer.load(folder)
    end = tokens.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokens.tokenizer.eos_token_id == start != end
    assert tokens.end_of_turn == (end, *(each for each in (start, 5) if each != end))
    assert tokens.encode_answer("Hi")[-1] == end
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    assert ChatTokenizer.load(folder).end_of_turn[0] == start, "a template that closes nothing"
    (folder / "chat_template.jinja").write_text("{{ raise_exception('not so') }}")
    assert ChatTokenizer.load(folder).end_of_turn[0] == start


def test_saving_gives_the_parents_directory_with_new_weights(tiny, tiny_llama_dir, tmp_path):
    with torch.no_grad():
        tiny.parameters()[0].add_(1)
    tiny.save(tmp_path / "new", tiny_llama_dir)
    names = {path.name for path in tiny_llama_dir.iterdir()}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert (tmp_path / "new" / "tokenizer.json").read_bytes() == (tiny_llama_dir / "tokenizer.json").read_bytes()
    again = LanguageModel.load(tmp_path / "new", CPU)
    assert all(map(torch.equal, again.parameters(), tiny.parameters()))


def test_saving_invents_no_file_and_loses_none(tiny, folder, tmp_path):
    (folder / "generation_config.json").unlink()
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool.jinja").write_text("{{ messages }}")
    (folder / ".skill").mkdir()
    (folder / ".skill/golden.json").write_text("{}")
    tiny.save(tmp_path / "new", folder)
    parent, new = (
        {path.relative_to(place).as_posix() for path in place.rglob("*")} for place in (folder, tmp_path / "new")
    )
    assert new == {name for name in parent if not name.startswith(".skill")}


def _without_a_tensor(weights):
    return {name: value for name, value in weights.items() if "layers.1.mlp.up" not in name}


def _with_one_more(weights):
    return {**weights, "model.layers.7.mtp.weight": torch.zeros(3)}


def _of_another_shape(weights):
    return {name: value[:-1].clone() if "layers.1.mlp.up" in name else value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_a_tensor, r"lacks model\.layers\.1\.mlp\.up_proj\.weight"),
        (_with_one_more, r"model\.layers\.7\.mtp\.weight, which LlamaForCausalLM does not know and would lose"),
        (_of_another_shape, r"up_proj\.weight, or has it in another shape"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(folder, spoil, message):
    """Missing ones would be random numbers, unknown ones would be missing from the published version."""
    weights = spoil(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelInvalid, match=message):
        LanguageModel.load(folder, CPU)


def test_damaged_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelInvalid, match="can be loaded"):
        LanguageModel.load(folder, CPU)


def test_weights_keep_the_parents_type_and_are_scored_as_published(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    half = {name: value.bfloat16() for name, value in weights.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", dtype="bfloat16")
    model = LanguageModel.load(folder, CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        model.parameters()[0].add_(1e-4)
    model.round_to_stored(folder)
    model.save(tmp_path / "new", folder)
    assert stored_dtype(tmp_path / "new") == torch.bfloat16
    published = LanguageModel.load(tmp_path / "new", CPU)
    assert all(map(torch.equal, published.parameters(), model.parameters()))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_written_tensor_by_tensor_is_what_the_library_writes_of_a_whole_copy(
    folder, tmp_path, monkeypatch, dtype, tied
):
    """The same bytes, what is tied once; a GPU may have no room for a second model."""
    weights = {name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()}
    if not tied:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1
        edit(folder / "config.json", tie_word_embeddings=False)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = LanguageModel.load(folder, CPU)
    copy.deepcopy(model.network).to(dtype).save_pretrained(tmp_path / "copy")
    monkeypatch.setattr(type(model.network), "__deepcopy__", lambda *_: pytest.fail("it is copied"), raising=False)
    model.save(tmp_path / "new", folder)
    written, expected = (tmp_path / name / "model.safetensors" for name in ("new", "copy"))
    assert written.read_bytes() == expected.read_bytes()
    assert load_file(written).keys() == weights.keys()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelInvalid, match="pickled ones are never loaded"):
        LanguageModel.load(folder, CPU)


def test_code_beside_the_weights_is_not_run(folder, tmp_path):
    witness = tmp_path / "ran"
    (folder / "custom.py").write_text(f"open({str(witness)!r}, 'w')")
    auto_map = {"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"}
    edit(folder / "config.json", auto_map=auto_map, model_type="custom")
    with pytest.raises(ModelInvalid, match="cannot be read"):
        LanguageModel.load(folder, CPU)
    assert not witness.exists()


def test_model_without_chat_template_is_refused(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelInvalid, match="has no chat template"):
        ChatTokenizer.load(folder)


def test_quantised_model_is_refused_before_any_training(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(FormatMismatch, match=r"awq.*import the model unquantised"):
        ChatTokenizer.load(folder)


def test_model_that_changes_its_logits_is_refused(folder, monkeypatch):
    """Stands for architectures with soft-capping or logit scaling: their loss would be computed wrongly."""
    model = LanguageModel.load(folder, CPU)
    forward = model.network.forward

    def scaled(**arguments):
        out = forward(**arguments)
        out.logits = out.logits * 0.5
        return out

    monkeypatch.setattr(model.network, "forward", scaled)
    with pytest.raises(ModelInvalid, match="changes its logits"):
        model._require_plain_head()
