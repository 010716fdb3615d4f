"""How fast the products of a step are at the model's own sizes: what share of the best rate a trainer can have at most.

python -m benchmarks.trainer.products [--threads 2] [--batch 32] [--new-tokens 64]

Each product is timed alone, over and over on the same operands, by the better of PyTorch's default and of oneDNN on
weights in blocks: without all that a step computes between two products, and without a cache that it finds cold. The
last line is a bound: a step of nothing but these products, every answer at full length.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tests.smollm2 import smollm2

from benchmarks.trainer.floor import Machine, shortest
from benchmarks.trainer.workload import SKIP, Setting, records
from skill_trainer.loop import PART_TOKENS
from skill_trainer.model import ChatTokenizer
from skill_trainer.packing import common_prefix
from skill_trainer.steps.examples import make_examples

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer of the model."""

    name: str
    inputs: int
    outputs: int
    count: int
    """How many of them the model has."""

    @property
    def weights(self) -> int:
        """Numbers in all of them."""
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations per second of a layer's products."""

    forward: float
    backward: float
    """Of both gradients, that of the input and that of the weight."""
    decode: float
    """Forward, with a row for each sequence of the batch."""


def layers(folder: Path) -> tuple[Layer, ...]:
    """Returns the linear layers of a Llama by its config.json; the head last."""
    config = json.loads((folder / "config.json").read_text())
    width, inner, depth = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    narrow = width * config["num_key_value_heads"] // config["num_attention_heads"]
    return (
        Layer("queries, output", width, width, 2 * depth),
        Layer("keys, values", width, narrow, 2 * depth),
        Layer("gate, up", width, inner, 2 * depth),
        Layer("down", inner, width, depth),
        Layer("head", width, config["vocab_size"], 1),
    )


def measured(layer: Layer, rows: int, batch: int) -> Rates:
    """Returns the best rates that are seen for a layer."""
    weight = torch.randn(layer.outputs, layer.inputs)
    inputs, gradient, few = (
        torch.randn(rows, layer.inputs),
        torch.randn(rows, layer.outputs),
        torch.randn(batch, layer.inputs),
    )
    operations = 2 * rows * layer.inputs * layer.outputs
    backward = shortest(lambda: gradient @ weight, CPU) + shortest(lambda: gradient.T @ inputs, CPU)
    return Rates(
        forward=operations / min(shortest(product, CPU) for product in _forward(inputs, weight)),
        backward=2 * operations / backward,
        decode=operations / rows * batch / min(shortest(product, CPU) for product in _forward(few, weight)),
    )


def _forward(rows: torch.Tensor, weight: torch.Tensor) -> Iterator[Callable[[], object]]:
    yield lambda: torch.nn.functional.linear(rows, weight)
    if torch.backends.mkldnn.is_available():
        blocks = torch.ops.mkldnn._reorder_linear_weight(weight, len(rows))  # noqa: SLF001
        yield lambda: torch.ops.mkldnn._linear_pointwise(rows, blocks, None, "none", [], "")  # noqa: SLF001


def bound(folder: Path, setting: Setting, rates: dict[str, Rates], best: float) -> float:
    """Returns the share of the best rate that a step has which computes these products and nothing else."""
    examples = make_examples(records(setting.batch), setting.method(), ChatTokenizer.load(folder))
    tokens = {
        side: _tokens([getattr(example, side) for example in examples], setting.new_tokens)
        for side in ("student", "teacher")
    }
    lost = setting.batch * (setting.new_tokens - SKIP)  # rows of the loss
    *body, head = layers(folder)
    operations = seconds = 0.0
    for layer in (*body, head):
        forward, backward = (lost * 2, lost) if layer is head else (sum(tokens.values()), tokens["student"])
        decoded = setting.batch * setting.new_tokens
        prefill = 0 if layer is head else max(0, tokens["student"] - decoded)
        for rows, rate in (
            (forward + prefill, rates[layer.name].forward),
            (2 * backward, rates[layer.name].backward),
            (decoded, rates[layer.name].decode),
        ):
            operations += 2 * layer.weights * rows
            seconds += 2 * layer.weights * rows / rate
    return operations / seconds / best


def _tokens(prompts: list[tuple[int, ...]], new_tokens: int) -> int:
    shared = common_prefix(prompts)
    return shared + sum(len(prompt) - shared + new_tokens for prompt in prompts)


def main() -> None:
    """Prints a row for each layer, and the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder, setting = smollm2(), Setting(options.batch, options.new_tokens)
    before = Machine.measured(CPU).rate
    rates = {layer.name: measured(layer, PART_TOKENS["cpu"], options.batch) for layer in layers(folder)}
    best = max(before, Machine.measured(CPU).rate)
    print(f"| layer | inputs x outputs | forward | backward | decode, {options.batch} rows |\n" + "| --- " * 5 + "|")
    for layer in layers(folder):
        each = rates[layer.name]
        cells = (f"{rate / 1e9:.0f} ({rate / best:.0%})" for rate in (each.forward, each.backward, each.decode))
        print(f"| {layer.name} | {layer.inputs} x {layer.outputs} | {' | '.join(cells)} |")
    print(
        f"\nGFLOP/s, and the share of {best / 1e9:.0f}, the rate of large square products. A step of nothing but these"
    )
    print(f"products, {setting.name}, has {bound(folder, setting, rates, best):.0%} of that rate.")


if __name__ == "__main__":
    main()
