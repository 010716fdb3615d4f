"""The model with more words than it has, to see what the vocabulary costs."""

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
