"""The model with more words than it has, to see what the vocabulary costs; larger ones, to see what a GPU can do."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import transformers


def with_vocabulary(folder: Path, vocabulary: int, out: Path) -> Path:
    """Returns a copy of the model with `vocabulary` entries, the new ones never said; the folder itself for 0."""
    if not vocabulary:
        return folder
    wide = out / f"vocabulary-{vocabulary}"
    if not wide.exists():
        network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        known = network.config.vocab_size
        network.resize_token_embeddings(vocabulary, mean_resizing=False)
        with torch.no_grad():
            network.get_input_embeddings().weight[known:] = 0
        part = wide.with_suffix(".part")
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns("*.safetensors*", "config.json"))
        network.save_pretrained(part)
        part.rename(wide)
    return wide


SIZES = {
    "1.7B": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 64,
    },
}  # fmt: skip
"""Of SmolLM2-1.7B, by its config.json."""


def of_size(folder: Path, size: str, out: Path) -> Path:
    """Returns a model of that size with the folder's tokenizer and random weights; the folder itself for none.

    It does not end its answers, so all are as long as they may be.
    """
    if not size:
        return folder
    large = out / size
    if not large.exists():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        config = transformers.AutoConfig.from_pretrained(folder)
        config.update(SIZES[size])
        torch.manual_seed(0)
        with torch.device(device):
            network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        part = large.with_suffix(".part")
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns("*.safetensors*", "config.json"))
        network.save_pretrained(part)
        part.rename(large)
    return large
