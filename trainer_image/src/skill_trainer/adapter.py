"""Low-rank adapters: a small trained update beside frozen weights, W + (alpha / rank) B A for each adapted layer.

The only importer of PEFT, whose layers take the place of the network's own. Configurations and weights of adapters are
written here, never read: what is trained always begins with this module's own draw.

Source: Hu et al., arXiv 2106.09685; shapes A [rank, in], B [out, rank].
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from skill_contract.spec import LoRA
from skill_trainer.errors import ConfigInvalid
from skill_trainer.schedule import generator

NAME = "default"
ALL_LINEAR = ("all-linear",)


@dataclass(frozen=True, slots=True)
class AdapterSize:
    """What an adapter adds to the memory of a run."""

    trained: int
    """Numbers in the adapter."""
    adapted: int
    """Weights of the layers that have one."""

    @classmethod
    def of(cls, network: Any, spec: LoRA) -> AdapterSize:
        """Returns the size of a network's adapter, which need not exist yet; raises ConfigInvalid as it would."""
        layers = target_layers(network, spec.target_modules).values()
        return cls(
            trained=sum(spec.rank * (layer.in_features + layer.out_features) for layer in layers),
            adapted=sum(layer.weight.numel() for layer in layers),
        )


class Adapter:
    """The adapter of one network, which it changes in place."""

    def __init__(self, network: Any, spec: LoRA, seed: int) -> None:
        """Gives the network's linear layers an adapter each, in fp32, and freezes everything else.

        The update is zero at first: A is random, a function of the seed alone, and B is zero.

        Raises:
            ConfigInvalid: for target modules that the network has not.
        """
        import peft  # noqa: PLC0415 - takes seconds, which only those who use it should pay

        names = list(target_layers(network, spec.target_modules))
        self._config = peft.LoraConfig(
            r=spec.rank, lora_alpha=spec.alpha, lora_dropout=0.0, bias="none", target_modules=names,
            init_lora_weights=False, task_type="CAUSAL_LM",
        )  # fmt: skip
        self._network = peft.inject_adapter_in_model(self._config, network, NAME)
        self._layers: dict[str, Any] = {name: network.get_submodule(name) for name in names}
        self._merged = False
        draw = generator(seed, "adapter", 0)
        with torch.no_grad():
            for layer in self._layers.values():
                for factor in (layer.lora_A[NAME], layer.lora_B[NAME]):
                    factor.float()  # PEFT gives it the type of the weights beside it
                a, b = _factors(layer)
                bound = a.shape[1] ** -0.5  # as PEFT and torch.nn.Linear draw it
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=draw))
                b.zero_()

    @contextmanager
    def off(self) -> Iterator[None]:
        """In this context the network is what it was without its adapter, bit by bit."""
        for layer in self._layers.values():
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer.enable_adapters(True)

    def effective(self) -> Iterator[tuple[str, Tensor]]:
        """Yields name and value, in fp32, of each weight as a plain network with the same outputs would have it."""
        for name, layer in self._layers.items():
            yield f"{name}.weight", _effective(layer)

    def plain_copy(self) -> Any:
        """Returns a plain network with the same outputs, without gradients.

        Only its adapted weights are its own; all others are this network's, which no training changes.
        """
        memo: dict[int, Any] = {id(parameter): parameter for parameter in self._network.parameters()}
        for layer in self._layers.values():
            base = layer.get_base_layer()
            weight = nn.Parameter(_effective(layer), requires_grad=False)
            memo[id(layer)] = copy.deepcopy(base, {**memo, id(base.weight): weight})
        return copy.deepcopy(self._network, memo)

    @torch.no_grad()
    def merge(self) -> None:
        """Adds the update to the weights, in fp32, and makes the network a plain one again; once.

        What was kept narrow is rounded to its type again.
        """
        if self._merged:
            return
        for name, layer in self._layers.items():
            base = layer.get_base_layer()
            base.weight.copy_(_effective(layer))
            self._network.set_submodule(name, base)
        del self._network.peft_config
        self._merged = True

    def save(self, folder: Path, parent: str) -> None:
        """Writes the adapter alone, as PEFT and the engines read it, for those who have `parent` loaded."""
        folder.mkdir()
        tensors = {}
        for name, layer in self._layers.items():
            for kind, factor in zip(("lora_A", "lora_B"), _factors(layer), strict=True):
                tensors[f"base_model.model.{name}.{kind}.weight"] = factor.detach().contiguous()
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = copy.deepcopy(self._config)
        config.base_model_name_or_path, config.inference_mode, config.init_lora_weights = parent, True, True
        config.save_pretrained(str(folder))


def keep_narrow(network: Any) -> None:
    """Keeps in bf16, as they are stored, all matrices that an adapter leaves as they are; the head's is the loss's."""
    for layer in _linear(network).values():
        layer.weight.data = layer.weight.data.to(torch.bfloat16)


def num_narrow(network: Any) -> int:
    """Returns how many weights `keep_narrow` keeps so, of a network that is stored in bf16; 0 for any other."""
    if network.config.dtype is not torch.bfloat16:
        return 0
    return sum(layer.weight.numel() for layer in _linear(network).values())


def target_layers(network: Any, wanted: Sequence[str]) -> Mapping[str, nn.Linear]:
    """Returns the layers that get an adapter, by name, in the network's order.

    Args:
        wanted: names of linear layers, whole or their last parts, or ALL_LINEAR: all but the output head. The head has
            none: its weight alone enters the loss, and it is often the embedding's, too.

    Raises:
        ConfigInvalid: for a name that no such layer has.
    """
    linear = _linear(network)
    if tuple(wanted) == ALL_LINEAR and linear:
        return linear
    for one in wanted:
        if not any(_is_named(name, one) for name in linear):
            kinds = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
            raise ConfigInvalid(
                f"method.adaptation.lora.targetModules: {one!r} is no linear layer of {type(network).__name__}, or is "
                f"its output head: write all-linear alone, or some of what it has: {kinds}"
            )
    return {name: module for name, module in linear.items() if any(_is_named(name, one) for one in wanted)}


def _linear(network: Any) -> dict[str, nn.Linear]:
    """Returns all linear layers but the output head, by name, in the network's order."""
    head = network.get_output_embeddings()
    return {
        name: module for name, module in network.named_modules() if isinstance(module, nn.Linear) and module is not head
    }


def _is_named(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight


@torch.no_grad()
def _effective(layer: Any) -> Tensor:
    a, b = _factors(layer)
    return torch.add(layer.get_base_layer().weight, b @ a, alpha=layer.scaling[NAME])
