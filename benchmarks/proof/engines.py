"""Two engines that run on a CPU: `transformers serve`, asked over HTTP as a pod is, and llama.cpp, asked in-process.

llama.cpp gets its own file format, made from the version's safetensors, and does its own tokenising and arithmetic.
"""
# ruff: noqa: SLF001 - the bindings' public face only samples; a greedy answer with log-probabilities is made below it

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
from safetensors.torch import load_file
from tests.cluster.controlplane import free_port

from skill_contract.manifest import Golden, GoldenSet
from skill_contract.step import Pod
from skill_store.proof import Answer, PodProof, judge
from skill_store.prove import prove
from skill_trainer.model import ChatTokenizer

Prove = Callable[[GoldenSet], PodProof]
Number = gguf.GGMLQuantizationType


@contextmanager
def transformers_serve(folder: Path, dtype: str) -> Iterator[Prove]:
    """Serves a version, and proves it by what it answers over HTTP."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--host", "127.0.0.1",
               "--port", str(port), "--device", "cpu", "--dtype", dtype]  # fmt: skip
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process)
        yield lambda golden: prove([Pod(name="transformers", url=url)], golden)[0]
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            httpx.get(f"{url}/v1/models", trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if process.poll() is not None:
                raise
            time.sleep(0.5)
        else:
            return


@contextmanager
def llama_cpp(folder: Path, base: Path, number: Number) -> Iterator[Prove]:
    """Runs a version in llama.cpp, its matrices in this number format.

    Args:
        base: a GGUF file of the model that it was trained from: tokenizer and shapes are the same.
    """
    from llama_cpp_py_sync import Llama  # noqa: PLC0415 - an extra of this benchmark alone

    file = folder / f"{number.name}.gguf"
    convert(folder, base, file, number)
    tokens = ChatTokenizer.load(folder)
    with Llama(str(file), n_ctx=512, n_threads=1, verbose=False) as engine:
        yield lambda golden: judge("llama.cpp", golden, [_answer(engine, tokens, each) for each in golden.prompts])
    file.unlink()


def _answer(engine: Any, tokens: ChatTokenizer, prompt: Golden) -> Answer:
    library, vocabulary = engine._lib, engine._vocab
    text = tokens.tokenizer.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=False)
    asked = engine.tokenize(text, add_special=False, parse_special=True)
    engine._clear_context_state()
    past, said, logprobs = engine._eval_tokens(asked, 0), b"", []
    for _ in range(prompt.max_new_tokens):
        row = engine._ffi.buffer(library.llama_get_logits_ith(engine._ctx, -1), 4 * engine.n_vocab)
        logits = np.frombuffer(row, dtype=np.float32).astype(np.float64)
        best = int(logits.argmax())
        logprobs.append(float(logits[best] - logits.max() - np.log(np.exp(logits - logits.max()).sum())))
        if library.llama_vocab_is_eog(vocabulary, best):
            break
        said += engine._token_to_bytes(best)
        past = engine._eval_tokens([best], past)
    return Answer(said.decode(errors="replace"), tuple(logprobs))


def convert(folder: Path, base: Path, file: Path, number: Number) -> None:
    """Writes a Llama of safetensors as GGUF, its tokenizer and numbers of layers and heads as `base` has them."""
    weights = {name: tensor.float().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    reader = gguf.GGUFReader(base)
    writer = gguf.GGUFWriter(file, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    layers, heads, shared = (int(reader.fields[f"llama.{name}"].contents()) for name in
                             ("block_count", "attention.head_count", "attention.head_count_kv"))  # fmt: skip
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for name, weight in weights.items():
        place = names.get_name(name, try_suffixes=(".weight",))
        turned = {"q_proj": heads, "k_proj": shared}.get(name.split(".")[-2])
        matrix = _interleaved(weight, turned) if turned else weight
        kind = number if matrix.ndim > 1 else Number.F32
        writer.add_tensor(place, gguf.quants.quantize(matrix, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp turns neighbouring dimensions of a head together, Hugging Face the first half with the second."""
    parts = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(parts.swapaxes(1, 2)).reshape(weight.shape)
