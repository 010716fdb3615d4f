"""How much memory a run will need. An estimate for the user before a machine is asked for; pure.

Full fine-tuning keeps, in fp32, weights, gradients, two moments of AdamW and, for SDFT, the teacher: 20 bytes a weight.
With an adapter that is true of the adapter's few numbers; of the weights beside it there is one copy, and of those that
have an adapter a second one for an averaged teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skill_contract.spec import Method, TeacherWeights
from skill_trainer.adapter import AdapterSize
from skill_trainer.divergence import CHUNK_ROWS
from skill_trainer.loop import PART_TOKENS

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FP32 = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model that memory depends on."""

    num_parameters: int
    layers: int
    width: int
    inner_width: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any], weight_bytes: int) -> Shape:
        """Returns the sizes from a model's config.json and the bytes of its weight files."""
        text = config.get("text_config", config)
        stored = text.get("dtype") or text.get("torch_dtype") or "float32"
        return cls(
            num_parameters=weight_bytes // BYTES.get(stored, FP32),
            layers=text["num_hidden_layers"],
            width=text["hidden_size"],
            inner_width=text.get("intermediate_size", 4 * text["hidden_size"]),
            vocabulary=text["vocab_size"],
        )


def state_numbers(shape: Shape, method: Method, adapter: AdapterSize | None) -> tuple[int, int]:
    """Returns how many fp32 numbers there are between two steps: in memory, and in a checkpoint."""
    is_averaged = method.type == "SDFT" and method.sdft.teacher.weights is TeacherWeights.EMA
    if adapter:
        teacher = adapter.adapted if is_averaged else 0
        return shape.num_parameters + 4 * adapter.trained + teacher, 3 * adapter.trained + teacher
    all_weights = shape.num_parameters
    return all_weights * (5 if method.type == "SDFT" else 4), all_weights * (4 if is_averaged else 3)


def estimate_bytes(
    shape: Shape, *, method: Method, gpu: bool, batch_tokens: int, adapter: AdapterSize | None = None
) -> int:
    """Returns the memory of training at its peak, in bytes.

    Args:
        adapter: what alone is trained, where it is not all.
        gpu: activations are bf16 there and fp32 on a CPU.
        batch_tokens: padded tokens of a whole batch, teacher's prompts included; cut into parts where it is large.
    """
    state = FP32 * state_numbers(shape, method, adapter)[0]
    part = min(batch_tokens, PART_TOKENS["cuda" if gpu else "cpu"])
    # What autograd keeps of a layer: inputs of products and norms, queries, keys, values; gate, up, their product.
    activations = part * shape.layers * (10 * shape.width + 4 * shape.inner_width) * (2 if gpu else FP32)
    # Student, teacher, probabilities, gradient and scratch of one chunk; the head's gradient, where it is trained.
    head = 0 if adapter else shape.vocabulary * shape.width * FP32
    loss = 6 * CHUNK_ROWS * shape.vocabulary * FP32 + head
    return state + activations + loss
