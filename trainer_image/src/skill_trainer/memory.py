"""How much memory a run will need, and how much of it may be in flight at once. Estimates; pure.

Full fine-tuning keeps, in fp32, weights, gradients, two moments of AdamW and, for SDFT, the teacher: 20 bytes a weight.
With an adapter that is true of the adapter's few numbers; of the weights beside it there is one copy, and of those that
have an adapter a second one for an averaged teacher. On a GPU products take copies in bf16, which autograd keeps until
the way back; but for matrices beside an adapter that are stored in bf16, which stay so.

Several processes share the state out (FSDP), but an adapter's. What multiplies is whole in each of them all the same:
the copies; embeddings and heads of both models for the length of a pass; the student while it answers; and both models
before they are shared out.

`python -m benchmarks.estimate` holds the sum against measured peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Self

from skill_contract.spec import Method, TeacherWeights
from skill_trainer.adapter import AdapterSize, num_narrow
from skill_trainer.divergence import CHUNK_ROWS
from skill_trainer.loop import PART_TOKENS, tokens_beside
from skill_trainer.model import blocks
from skill_trainer.packing import common_prefix
from skill_trainer.prompts import Example
from skill_trainer.rollout import BATCH_ROWS, ROOM, answer_bytes, cached_numbers

FP32, BF16 = 4, 2
PROGRAM = 800_000_000
"""Python with its libraries and a tokenizer, in the memory of a CPU. Measured."""
COMMON_GPU = 80_000_000_000
"""Bytes of the GPU that is assumed where there is none to ask: an H100's or A100's."""
USABLE = 0.85
"""Of a GPU's memory: the rest is the driver's and the allocator's."""
IN_FLIGHT = 1.4
"""All memory of a forward and backward pass, as a multiple of what autograd keeps: gradients on their way back, and
what the allocator cannot use again. Measured (benchmarks/estimate.py)."""
IN_FLIGHT_ADAPTED = {"cpu": 1.75, "cuda": 1.2}
"""The same with adapters, whose products are made beside the layers' own. Measured on both."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model that memory depends on."""

    num_parameters: int
    outside: int
    """Parameters that are in no layer: embedding, head, last norm."""
    products: int
    """Weights that tokens are multiplied with: matrices of the layers, and the head."""
    layers: int
    width: int
    inner_width: int
    vocabulary: int
    cached: int
    """Numbers that are kept of a token while an answer is made."""
    narrow: int = 0
    """Weights that stay in bf16 on a GPU when an adapter is trained beside them."""

    @classmethod
    def of(cls, network: Any) -> Shape:
        """Returns the sizes of a network, which may be an outline."""
        head, layers = network.get_output_embeddings().weight, blocks(network)
        inside = list(layers.parameters())
        num_parameters = sum(weight.numel() for weight in network.parameters())
        inner_width = getattr(network.config.get_text_config(), "intermediate_size", None)
        return cls(
            num_parameters=num_parameters,
            outside=num_parameters - sum(weight.numel() for weight in inside),
            products=head.numel() + sum(weight.numel() for weight in inside if weight.dim() > 1),
            layers=len(layers),
            width=head.shape[1],
            inner_width=inner_width if isinstance(inner_width, int) else 4 * head.shape[1],
            vocabulary=head.shape[0],
            cached=cached_numbers(network),
            narrow=num_narrow(network),
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
    prompt: int = 0
    """Tokens of the longest prompt that is answered."""
    answer: int = 0
    """Most tokens of an answer that is made."""

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
            prompt=max(len(each.student) for each in examples),
            answer=method.rollout.max_new_tokens,
        )


def _tokens(length: int, shared: int, sequences: int) -> int:
    """Returns the tokens of a pass over sequences of one length, whose common beginning is computed once."""
    return shared + tokens_beside(length, shared) * sequences if sequences else 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a run, in each of its processes, by what they are for."""

    state: int
    """Weights, moments, teacher: there all the time."""
    gradients: int
    """Made by a batch's first part, when its activations go."""
    copies: int
    """Of weights, in bf16, from a part's way through the student to its way back."""
    activations: int
    later_activations: int
    """Of another part than a batch's first."""
    loss: int
    """A chunk of rows over the whole vocabulary, and the head's gradient."""
    answers: int
    """Weights in the form in which answers are made, and the cache of those that are made at once."""
    gathered: int
    """Of what is shared out, what is whole in a pass: that outside of layers, and a few layers at a time."""
    whole: int
    """Of what is shared out, what is whole while answers are made: the student, and that outside of the teacher's
    layers."""
    beginning: int
    """Student and teacher before they are shared out."""
    program: int

    @property
    def peak(self) -> int:
        """What is there at the same time, at most."""
        first, later = self.activations + self.loss, self.later_activations + self.loss
        training = max(self.copies + first, self.gradients + (self.copies + later if self.later_activations else 0))
        answering = self.whole + self.answers
        return self.program + max(self.state + max(self.gathered + training, answering), self.beginning)


def state_numbers(shape: Shape, method: Method, adapter: AdapterSize | None) -> tuple[int, int]:
    """Returns how many fp32 numbers there are between two steps: in memory, and in a checkpoint."""
    is_averaged = method.type == "SDFT" and method.sdft.teacher.weights is TeacherWeights.EMA
    if adapter:
        teacher = adapter.adapted if is_averaged else 0
        return shape.num_parameters + 4 * adapter.trained + teacher, 3 * adapter.trained + teacher
    all_weights = shape.num_parameters
    return all_weights * (5 if method.type == "SDFT" else 4), all_weights * (4 if is_averaged else 3)


def estimate_memory(
    shape: Shape, part: Part, *, method: Method, gpu: bool, adapter: AdapterSize | None = None, processes: int = 1,
    room: int | None = None,
) -> Memory:  # fmt: skip
    """Returns the memory of a run, in each of its processes.

    Args:
        gpu: products and activations are bf16 there and fp32 on a CPU.
        adapter: what alone is trained, where it is not all.
        processes: how many train together.
        room: bytes of answers that are made at once; ROOM where that is not known.
    """
    spread = 1 if adapter else processes
    kept = _kept_of_a_token(shape, adapted=adapter is not None, gpu=gpu)
    head = 0 if adapter else shape.vocabulary * shape.width * FP32
    trained = adapter.trained if adapter else shape.num_parameters
    models = 2 if method.type == "SDFT" else 1
    layer = (shape.num_parameters - shape.outside) // shape.layers
    narrow = shape.narrow if adapter and gpu else 0
    return Memory(
        state=(FP32 * (state_numbers(shape, method, adapter)[0] - trained) - (FP32 - BF16) * narrow) // spread,
        gradients=FP32 * trained // spread,
        copies=BF16 * (shape.products - narrow) if gpu else 0,
        activations=int(part.student_tokens * kept),
        later_activations=int(part.later_tokens * kept),
        # Student, teacher, probabilities, gradient and scratch of one chunk; the head's gradient, twice on its way.
        loss=6 * min(part.rows, CHUNK_ROWS) * shape.vocabulary * FP32 + 2 * head,
        answers=_answers(shape, part, ceil(method.batch_size / processes), gpu=gpu, room=room, narrow=narrow),
        # One that computes, one that is fetched meanwhile, a gradient on its way.
        gathered=0 if spread == 1 else FP32 * (models * shape.outside + 3 * layer),
        whole=0 if spread == 1 else FP32 * (shape.num_parameters + (models - 1) * shape.outside),
        beginning=0 if spread == 1 else FP32 * models * shape.num_parameters,
        program=0 if gpu else PROGRAM,
    )


def _answers(shape: Shape, part: Part, sampled: int, *, gpu: bool, room: int | None, narrow: int) -> int:
    """Returns the bytes of making answers, of which so many are sampled by a process in a step."""
    device, number = ("cuda", BF16) if gpu else ("cpu", FP32)
    one = answer_bytes(shape.cached * number, shape.vocabulary, part.prompt, part.answer)
    most = max(one, ROOM[device] if room is None else room)
    return number * (shape.products - narrow) + min(one * max(sampled, BATCH_ROWS), most)


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a run is in flight at the same time.

    A function of sizes, not of what is free at the moment: an attempt that goes on from a checkpoint has to cut as the
    one before.
    """

    part_tokens: int
    """Of a forward and backward pass: PART_TOKENS, or what a GPU has room for; at least one, which cuts a batch into
    its sequences."""
    answers: int
    """Bytes of answers that are made at once."""

    @classmethod
    def of(
        cls, shape: Shape, method: Method, adapter: AdapterSize | None, *, gpu_bytes: int, processes: int = 1
    ) -> Self:
        """Returns the room on a GPU with so many bytes, 0 for a CPU, of several processes that train together."""
        if not gpu_bytes:
            return cls(PART_TOKENS["cpu"], ROOM["cpu"])
        nothing = Part(student_tokens=0, later_tokens=0, teacher_tokens=0, rows=CHUNK_ROWS)
        needed = estimate_memory(
            shape, nothing, method=method, gpu=True, adapter=adapter, processes=processes, room=0
        )  # fmt: skip
        free = USABLE * gpu_bytes - needed.state
        beside = free - needed.gradients - needed.copies - needed.gathered - needed.loss
        tokens = beside / _kept_of_a_token(shape, adapted=adapter is not None, gpu=True)
        answers = free - needed.whole - needed.copies
        return cls(max(1, min(PART_TOKENS["cuda"], int(tokens))), max(0, min(ROOM["cuda"], int(answers))))


def expected_memory(
    shape: Shape, examples: Sequence[Example], method: Method, adapter: AdapterSize | None, *, gpu_bytes: int,
    processes: int = 1,
) -> Memory:  # fmt: skip
    """Returns the memory of a run on such GPUs (0: on a CPU), each used as far as it has room."""
    room = Room.of(shape, method, adapter, gpu_bytes=gpu_bytes, processes=processes)
    part = Part.of(examples, method, tokens=room.part_tokens)
    return estimate_memory(
        shape, part, method=method, gpu=gpu_bytes > 0, adapter=adapter, processes=processes, room=room.answers
    )


def least_memory(
    shape: Shape, examples: Sequence[Example], method: Method, adapter: AdapterSize | None, *, processes: int = 1
) -> Memory:
    """Returns the least memory of a GPU with which the run is possible: sequence by sequence, answer by answer."""
    part = Part.of(examples, method, tokens=1)
    return estimate_memory(shape, part, method=method, gpu=True, adapter=adapter, processes=processes, room=0)


def _kept_of_a_token(shape: Shape, *, adapted: bool, gpu: bool) -> float:
    """Returns the bytes that a token takes on its way through the model.

    What autograd keeps of a layer: inputs of norms and products, queries, keys, values, the attention's result (11 of
    the model's width together); gate, up, their product, activated. Counted by torch's hooks for saved tensors.
    """
    in_flight = IN_FLIGHT_ADAPTED["cuda" if gpu else "cpu"] if adapted else IN_FLIGHT
    return in_flight * shape.layers * (11 * shape.width + 4 * shape.inner_width) * (BF16 if gpu else FP32)
