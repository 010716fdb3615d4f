"""The estimate of memory: what goes through a model at the same time, and what it adds up to."""

from __future__ import annotations

import pytest

from skill_trainer.loop import PART_TOKENS
from skill_trainer.memory import COMMON_GPU, PROGRAM, Part, Shape, estimate_memory, tokens_at_once
from skill_trainer.prompts import Example
from tests.trainer.core.conftest import method

QWEN_7B = Shape(num_parameters=7_615_616_512, layers=28, width=3584, inner_width=18944, vocabulary=152_064)
SMOLLM2 = Shape(num_parameters=134_515_008, layers=30, width=576, inner_width=1536, vocabulary=49152)


def example(student: int, teacher: int, target: int, *, first: int = 0) -> Example:
    """So many tokens of each; examples with different `first` tokens have no common beginning."""
    prompts = ((first, *range(1, length)) for length in (student, teacher))
    return Example("e", *(tuple(prompt) for prompt in prompts), target=(7,) * target)


def test_prompts_without_a_common_beginning_cost_their_whole_length():
    examples = [example(20, 50, 5, first=first) for first in (100, 101, 102)]
    part = Part.of(examples, method(batchSize=8), tokens=PART_TOKENS["cpu"])
    assert part == Part(student_tokens=8 * 28, later_tokens=0, teacher_tokens=8 * 58, rows=64)


def test_what_all_prompts_begin_with_costs_once_and_a_tenth_for_each():
    examples = [Example(str(end), (*range(40), end), (*range(40), end, end), target=(1,)) for end in (50, 60)]
    part = Part.of(examples, method(batchSize=8), tokens=PART_TOKENS["cpu"])
    assert part == Part(student_tokens=40 + 8 * (9 + 4), later_tokens=0, teacher_tokens=40 + 8 * (10 + 4), rows=64)


def test_a_large_batch_is_cut_into_parts():
    length = PART_TOKENS["cpu"] // 2
    examples = [example(100, length - 8, 5, first=first) for first in (1000, 1001)]
    part = Part.of(examples, method(batchSize=64), tokens=PART_TOKENS["cpu"])  # the longest sequences set the cut
    assert part == Part(student_tokens=2 * 108, later_tokens=2 * 108, teacher_tokens=2 * length, rows=16)


def test_sft_reads_its_demonstrations_and_has_no_teacher():
    examples = [example(20, 50, 9, first=100), example(10, 50, 5, first=101)]
    part = Part.of(examples, method(type="SFT", batchSize=3), tokens=PART_TOKENS["cpu"])
    assert part == Part(student_tokens=3 * 29, later_tokens=0, teacher_tokens=0, rows=27)


@pytest.mark.parametrize(("kind", "copies"), [("SDFT", 5), ("SFT", 4)])
def test_state_is_weights_gradients_moments_and_teacher(kind, copies):
    memory = estimate_memory(SMOLLM2, Part(100, 0, 100, 50), method=method(type=kind), gpu=False)
    assert memory.gradients == 4 * SMOLLM2.num_parameters
    assert memory.state == (copies - 1) * memory.gradients


def test_gradients_come_when_activations_go_unless_another_part_follows():
    small, large, several = (
        estimate_memory(SMOLLM2, Part(first, later, first, 9), method=method(), gpu=False)
        for first, later in ((10, 0), (1000, 0), (1000, 900))
    )
    assert small.peak == PROGRAM + small.state + small.gradients
    assert large.peak == PROGRAM + large.state + large.activations + large.loss
    assert several.peak == PROGRAM + several.state + several.gradients + several.later_activations + several.loss


def test_the_last_part_of_a_batch_may_be_small():
    length = PART_TOKENS["cpu"] // 4
    examples = [example(length - 8, length - 8, 5, first=first) for first in (1000, 1001)]
    assert Part.of(examples, method(batchSize=5), tokens=PART_TOKENS["cpu"]).later_tokens == length


def test_on_a_gpu_activations_are_half_as_large_and_the_program_lies_elsewhere():
    cpu, gpu = (estimate_memory(SMOLLM2, Part(100, 0, 100, 50), method=method(), gpu=gpu) for gpu in (False, True))
    assert gpu.activations == cpu.activations / 2
    assert gpu.program == 0


def test_number_of_parameters_follows_from_the_files_and_their_type():
    config = {"num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 50, "dtype": "bfloat16"}
    shape = Shape.of(config, 2000)
    assert (shape.num_parameters, shape.inner_width) == (1000, 32)


def test_a_small_model_has_room_for_the_most_tokens_at_once_and_a_cpu_is_not_asked():
    assert tokens_at_once(SMOLLM2, method(), None, gpu_bytes=COMMON_GPU) == PART_TOKENS["cuda"]
    assert tokens_at_once(SMOLLM2, method(), None, gpu_bytes=0) == PART_TOKENS["cpu"]


@pytest.mark.parametrize("processes", [4, 8])
def test_what_goes_through_a_large_model_at_once_fits_beside_its_state(processes):
    tokens = tokens_at_once(QWEN_7B, method(), None, gpu_bytes=COMMON_GPU, processes=processes)
    assert 1000 < tokens < PART_TOKENS["cuda"]
    memory = estimate_memory(QWEN_7B, Part(tokens, 0, tokens, 256), method=method(), gpu=True)
    held = (memory.state + memory.gradients) / processes + memory.activations + memory.loss
    assert 0.8 * COMMON_GPU < held < 0.86 * COMMON_GPU


def test_a_model_without_room_is_trained_sequence_by_sequence():
    assert tokens_at_once(QWEN_7B, method(), None, gpu_bytes=COMMON_GPU) == 1
    examples = [example(20, 50, 5, first=first) for first in (100, 101, 102)]
    assert Part.of(examples, method(batchSize=8), tokens=1).teacher_tokens == 58
