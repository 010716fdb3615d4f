"""How much memory a run has: found before anything is measured, so that a GPU that is too small is said at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from skill_contract.spec import Method
from skill_contract.step import TrainConfig
from skill_trainer.adapter import AdapterSize
from skill_trainer.device import gpu_bytes
from skill_trainer.errors import OutOfMemory
from skill_trainer.memory import Memory, Room, Shape, expected_memory, least_memory
from skill_trainer.model import outline
from skill_trainer.prompts import Example


def sizes(folder: Path, method: Method) -> tuple[Shape, AdapterSize | None]:
    """Returns the sizes of the model in a folder, which needs no weights, and of the adapter that it is going to have.

    Raises:
        ModelInvalid: where config.json is of no causal language model.
        ConfigInvalid: for target modules that it has not.
    """
    network, spec = outline(folder), method.adaptation.adapter
    return Shape.of(network), AdapterSize.of(network, spec) if spec else None


def memory_of(
    config: TrainConfig, shape: Shape, adapter: AdapterSize | None, examples: Sequence[Example], *, gpu_bytes: int
) -> Memory:
    """Returns the memory of a run as its configuration asks for it, in each of its processes.

    Args:
        gpu_bytes: of a GPU, for a run that has any.
    """
    training = config.training
    return expected_memory(
        shape, examples, config.method, adapter, gpu_bytes=gpu_bytes if training.gpus_per_node else 0,
        processes=training.nodes * max(1, training.gpus_per_node),
    )  # fmt: skip


def find_room(
    parent: Path, method: Method, examples: Sequence[Example], device: torch.device, *, processes: int = 1,
    adapted: bool = True,
) -> Room:  # fmt: skip
    """Returns how much goes through the model at the same time; as much in every attempt on such a machine.

    Args:
        parent: folder of the model as it was.
        examples: all that is trained on.
        processes: how many train, each with its own device.
        adapted: the model of a method with an adapter was loaded for that alone, see `LanguageModel.load`.

    Raises:
        OutOfMemory: where not even a sequence at a time fits the GPU.
        ModelInvalid, ConfigInvalid: as `sizes` does.
    """
    shape, adapter = sizes(parent, method)
    shape = shape if adapted else replace(shape, narrow=0)
    present = gpu_bytes(device)
    needed = least_memory(shape, examples, method, adapter, processes=processes).peak
    if present and needed > present:
        raise OutOfMemory(
            f"the run needs {needed / 1e9:.1f} GB of a GPU at least, and this one has {present / 1e9:.1f}: take a "
            f"larger one, {ways_out(method)}"
        )
    return Room.of(shape, method, adapter, gpu_bytes=present, processes=processes)


def ways_out(method: Method) -> str:
    """Returns what lowers the memory of a run on a GPU."""
    shorter = "shorten the longest prompts and method.rollout.maxNewTokens"
    batches = "(method.batchSize changes little, as batches are cut to fit)"
    if not method.adaptation.adapter:
        return (
            "train an adapter (method.adaptation.type: LoRA, with method.sdft.teacher.weights: Frozen), share the "
            f"state out over more GPUs (training.gpusPerNode, training.nodes), or {shorter} {batches}"
        )
    return f"keep one copy of the weights (method.sdft.teacher.weights: Frozen), or {shorter} {batches}"
