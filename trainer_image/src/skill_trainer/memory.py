"""How much memory a run will need. An estimate for the user before a machine is asked for; pure.

Full fine-tuning keeps, in fp32, weights, gradients, two moments of AdamW and, for SDFT, the teacher: 20 bytes a weight.
With an adapter that is true of the adapter's few numbers; of the weights beside it there is one copy, and of those that
have an adapter a second one for an averaged teacher.

`python -m benchmarks.estimate` holds the sum against measured peaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from skill_contract.spec import Method, TeacherWeights
from skill_trainer.adapter import AdapterSize
from skill_trainer.divergence import CHUNK_ROWS
from skill_trainer.loop import PART_TOKENS, tokens_beside
from skill_trainer.packing import common_prefix
from skill_trainer.prompts import Example

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FP32 = 4
PROGRAM = 800_000_000
"""Python with its libraries and a tokenizer, in the memory of a CPU. Measured."""
COMMON_GPU = 80_000_000_000
"""Bytes of the GPU that is assumed where there is none to ask: an H100's or A100's."""
USABLE = 0.85
"""Of a GPU's memory: the rest is the driver's, the allocator's, and the weights and cache of answers being made."""
IN_FLIGHT = 1.4
"""All memory of a forward and backward pass, as a multiple of what autograd keeps: gradients on their way back, and
what the allocator cannot use again. Measured on a CPU (benchmarks/estimate.py)."""
IN_FLIGHT_ADAPTED = 1.75
"""The same with adapters, whose products are made beside the layers' own. Measured."""


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


@dataclass(frozen=True, slots=True)
class Part:
    """What goes through the model at the same time, at most: the longest sequences of a batch, cut as the loop does."""

    student_tokens: int
    """Gradients flow through these."""
    later_tokens: int
    """The same of the largest part that is not a batch's first: by then there are gradients already."""
    teacher_tokens: int
    """Without gradients. 0 for SFT."""
    rows: int
    """Tokens of answers."""

    @classmethod
    def of(cls, examples: Sequence[Example], method: Method, *, tokens: int) -> Self:
        """Returns the largest part of any batch of these examples, of so many tokens at most.

        Answers are as long as they may be.
        """
        is_sft = method.type == "SFT"
        answer = max(len(each.target) for each in examples) if is_sft else method.rollout.max_new_tokens
        student, teacher = (
            (max(map(len, prompts)) + answer, common_prefix(prompts))
            for prompts in ([each.student for each in examples], [each.teacher for each in examples])
        )
        longest, shared = student if is_sft else teacher
        room = tokens - shared
        sequences = min(method.batch_size, max(1, room // tokens_beside(longest, shared)))
        return cls(
            student_tokens=_tokens(*student, sequences),
            later_tokens=_tokens(*student, min(sequences, method.batch_size - sequences)),
            teacher_tokens=0 if is_sft else _tokens(*teacher, sequences),
            rows=sequences * answer,
        )


def _tokens(length: int, shared: int, sequences: int) -> int:
    """Returns the tokens of a pass over sequences of one length, whose common beginning is computed once."""
    return shared + tokens_beside(length, shared) * sequences if sequences else 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a run by what they are for."""

    state: int
    """Weights, moments, teacher: there all the time."""
    gradients: int
    """Made by a batch's first part, when its activations go."""
    activations: int
    later_activations: int
    """Of another part than a batch's first."""
    loss: int
    """A chunk of rows over the whole vocabulary, and the head's gradient."""
    program: int

    @property
    def peak(self) -> int:
        """What is there at the same time, at most."""
        later = self.gradients + (self.later_activations + self.loss if self.later_activations else 0)
        return self.program + self.state + max(self.activations + self.loss, later)


def state_numbers(shape: Shape, method: Method, adapter: AdapterSize | None) -> tuple[int, int]:
    """Returns how many fp32 numbers there are between two steps: in memory, and in a checkpoint."""
    is_averaged = method.type == "SDFT" and method.sdft.teacher.weights is TeacherWeights.EMA
    if adapter:
        teacher = adapter.adapted if is_averaged else 0
        return shape.num_parameters + 4 * adapter.trained + teacher, 3 * adapter.trained + teacher
    all_weights = shape.num_parameters
    return all_weights * (5 if method.type == "SDFT" else 4), all_weights * (4 if is_averaged else 3)


def estimate_memory(
    shape: Shape, part: Part, *, method: Method, gpu: bool, adapter: AdapterSize | None = None
) -> Memory:
    """Returns the memory of training at its peak.

    Args:
        gpu: activations are bf16 there and fp32 on a CPU.
        adapter: what alone is trained, where it is not all.
    """
    kept = _kept_of_a_token(shape, adapted=adapter is not None, gpu=gpu)
    head = 0 if adapter else shape.vocabulary * shape.width * FP32
    gradients = FP32 * (adapter.trained if adapter else shape.num_parameters)
    return Memory(
        state=FP32 * state_numbers(shape, method, adapter)[0] - gradients,
        gradients=gradients,
        activations=int(part.student_tokens * kept),
        later_activations=int(part.later_tokens * kept),
        # Student, teacher, probabilities, gradient and scratch of one chunk; the head's gradient, twice on its way.
        loss=6 * min(part.rows, CHUNK_ROWS) * shape.vocabulary * FP32 + 2 * head,
        program=0 if gpu else PROGRAM,
    )


def tokens_at_once(
    shape: Shape, method: Method, adapter: AdapterSize | None, *, gpu_bytes: int, processes: int = 1
) -> int:
    """Returns how many tokens may go through the model at the same time: PART_TOKENS, or what a GPU has room for.

    At least one, which cuts a batch into its sequences. A function of sizes, not of what is free at the moment: an
    attempt that goes on from a checkpoint has to cut as the one before.

    Args:
        gpu_bytes: memory of the GPU, 0 for a CPU.
        processes: over how many of them weights, gradients and moments are spread.
    """
    if not gpu_bytes:
        return PART_TOKENS["cpu"]
    nothing = Part(student_tokens=0, later_tokens=0, teacher_tokens=0, rows=CHUNK_ROWS)
    needed = estimate_memory(shape, nothing, method=method, gpu=True, adapter=adapter)
    room = USABLE * gpu_bytes - (needed.state + needed.gradients) / processes - needed.loss
    return max(1, min(PART_TOKENS["cuda"], int(room / _kept_of_a_token(shape, adapted=adapter is not None, gpu=True))))


def _kept_of_a_token(shape: Shape, *, adapted: bool, gpu: bool) -> float:
    """Returns the bytes that a token takes on its way through the model.

    What autograd keeps of a layer: inputs of norms and products, queries, keys, values, the attention's result (11 of
    the model's width together); gate, up, their product, activated. Counted by torch's hooks for saved tensors.
    """
    in_flight = IN_FLIGHT_ADAPTED if adapted else IN_FLIGHT
    return in_flight * shape.layers * (11 * shape.width + 4 * shape.inner_width) * (2 if gpu else FP32)
