"""The language model: weights, tokenizer, and the few ways in which this trainer asks them.

The only importer of transformers. Models are loaded from a folder, from safetensors, and without running any code that
lies beside the weights.

Shape suffixes: B sequences, T tokens, C cached tokens, R rows, D model width, V vocabulary.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicLayer

from skill_contract.spec import LoRA
from skill_trainer import products
from skill_trainer.adapter import Adapter, keep_narrow
from skill_trainer.chat_template import closing_first, faults_of_the_template
from skill_trainer.decoding_weights import logits
from skill_trainer.device import keep_order_if_possible, precision
from skill_trainer.divergence import Head
from skill_trainer.errors import FormatMismatch, ModelInvalid
from skill_trainer.packing import NO_MASK, PACKED, FixedCache, GrowingCache, Packing, common_prefix, take_rows
from skill_trainer.saving import save
from skill_trainer.stored_weights import require_whole, stored_dtype

LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
MIN_SAVED = 64
"""Tokens from which a shared beginning is worth another pass over the weights."""


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """Tokenizer and chat template of a model folder; needs no weights."""

    tokenizer: Any
    end_of_turn: tuple[int, ...]
    """Token ids that end an answer; the first is the one that closes a turn in the chat template."""
    context: int
    """Most tokens that the model can read, prompt and answer together."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the template is given besides chat and tools."""

    @classmethod
    def load(cls, folder: Path, arguments: Mapping[str, Any] | None = None) -> Self:
        """Returns the tokenizer in a model folder, with arguments for its chat template.

        Raises:
            ModelInvalid: where one is missing or has no chat template.
            FormatMismatch: where the model's weights are quantised.
        """
        if (folder / "adapter_config.json").exists():
            raise ModelInvalid(f"{folder}: is an adapter (adapter_config.json): merge it into its base model first")
        try:
            config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
        except (OSError, ValueError, KeyError) as error:
            raise ModelInvalid(f"{folder}: cannot be read as a Hugging Face model ({_first_line(error)})") from error
        quantised = getattr(config, "quantization_config", None)
        if quantised:
            method = quantised.get("quant_method", "some method") if isinstance(quantised, dict) else quantised
            raise FormatMismatch(
                f"{folder}: config.json has a quantization_config ({method}), and training publishes plain weights, "
                "which an engine set up for these cannot serve: import the model unquantised, and let the engine "
                "quantise it while loading (vLLM: --quantization fp8)"
            )
        if not tokenizer.chat_template:
            raise ModelInvalid(f"{folder}: the tokenizer has no chat template: add the model's chat_template.jinja")
        context = config.get_text_config().max_position_embeddings
        return cls(tokenizer, _end_of_turn(folder, tokenizer), context, arguments or {})

    def encode(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Returns the token ids of a chat up to where the assistant's answer begins."""
        return self._apply(messages, tools, add_generation_prompt=True, tokenize=True, return_dict=False)

    def render(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> str:
        """Returns what the chat template makes of a chat as text, up to the end of its last message."""
        return self._apply(messages, tools, tokenize=False)

    def _apply(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], **how: Any) -> Any:
        with faults_of_the_template():
            chat, tools_or_none = list(messages), list(tools) or None
            return self.tokenizer.apply_chat_template(chat, tools=tools_or_none, **how, **self.arguments)

    def encode_answer(self, text: str) -> list[int]:
        """Returns the token ids of an answer with its end of turn: what a model would have had to generate."""
        return [*self.tokenizer.encode(text, add_special_tokens=False), self.end_of_turn[0]]

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of an answer without special tokens."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)


class LanguageModel:
    """A causal language model with fp32 weights, but for what `load` may leave in bf16 on a GPU.

    Dropout is always off: nothing is pulled towards its own noise.
    """

    def __init__(self, network: Any, tokens: ChatTokenizer, adapter: Adapter | None = None) -> None:
        self.network = network.eval()
        self.tokens = tokens
        self.adapter = adapter
        state = transformers.DynamicCache(config=network.config).layers
        self.plain_attention = all(type(layer) is DynamicLayer for layer in state)
        """Whether its layers keep all keys and values, and nothing else."""
        self.records = self.plain_attention
        """Whether its decode step can be recorded, as far as is known, see `decoding`."""
        self.packs = self.plain_attention and _attention(network) == PACKED
        """Whether several sequences can lie in one row, see `packing`."""
        self.answer_room: int | None = None
        """Bytes of answers that may be made at the same time; None: as many as `rollout` allows anyone."""

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, arguments: Mapping[str, Any] | None = None, *, adapted: bool = False
    ) -> Self:
        """Returns the model in `folder` on a device, with arguments for its chat template.

        Args:
            adapted: it will be trained by an adapter alone. Matrices that are stored in bf16 stay so on a GPU, whose
                products are bf16 anyway: the same numbers in half the memory, and no copies of them.

        Raises:
            ModelInvalid: for pickled weights, custom code, no chat template, weights that are not exactly the model's,
                or logits from more than a linear layer.
        """
        tokens = ChatTokenizer.load(folder, arguments)
        if not any(folder.glob("*.safetensors")):
            raise ModelInvalid(
                f"{folder}: has no .safetensors files: convert the weights, pickled ones are never loaded"
            )
        try:
            network, loaded = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True, **LOCAL,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelInvalid(
                f"{folder}: is no causal language model that can be loaded ({_first_line(error)})"
            ) from error
        require_whole(folder, type(network).__name__, loaded)
        _pack_if_possible(network)
        model = cls(network, tokens)
        model._require_plain_head()  # while all is fp32, in memory that a GPU need not have
        if adapted and device.type == "cuda" and stored_dtype(folder) is torch.bfloat16:
            keep_narrow(network)
        for parameter in network.parameters():
            # Memory of our own: what maps a file may be aligned differently, and then products round differently.
            parameter.data = parameter.data.to(device, copy=True)
        network.to(device)
        if device.type == "cuda":
            keep_order_if_possible(model.rehearse)
        products.use_in(network)
        return model

    @classmethod
    def random(cls, folder: Path, layers: int, device: torch.device) -> Self:
        """Returns a model of the folder's shape but with so many layers and random weights: for timing alone."""
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
        text = config.get_text_config()
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):  # what kind each layer is
            text.layer_types = text.layer_types[:layers]
        network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        _pack_if_possible(network.to(device))
        products.use_in(network)
        return cls(network, ChatTokenizer.load(folder))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def head(self) -> Head:
        """The last layer; its weight may be the embedding's."""
        layer = self.network.get_output_embeddings()
        return Head(layer.weight, layer.bias)

    @property
    def blocks(self) -> Sequence[Any]:
        """The layers that follow one upon the other, most of the weights."""
        return blocks(self.network)

    def parameters(self) -> list[Tensor]:
        """Returns every weight once, tied ones too, in a fixed order."""
        return list(self.network.parameters())

    def named_parameters(self) -> dict[str, Tensor]:
        """Returns every weight once by its name."""
        return dict(self.network.named_parameters())

    def adapt(self, spec: LoRA, seed: int) -> None:
        """Gives the model an adapter, which alone is trained from now on; raises ConfigInvalid as `Adapter` does."""
        self.adapter = Adapter(self.network, spec, seed)
        self.network.eval()  # the new layers, too

    def begin_anew(self) -> None:
        """Makes a model whose adapter has been merged one that can be trained again, whole or with another adapter."""
        self.adapter = None
        self.network.requires_grad_(requires_grad=True)

    def trained_parameters(self) -> dict[str, Tensor]:
        """Returns, by name, what training changes: every weight, or the adapter's."""
        return {name: weight for name, weight in self.named_parameters().items() if weight.requires_grad}

    def effective_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields name and value of each weight that training changes, as a model without adapter would have it."""
        if self.adapter:
            yield from self.adapter.effective()
        else:
            yield from self.named_parameters().items()

    def frozen_copy(self) -> LanguageModel:
        """Returns a copy without adapter and gradients; what no training changes, it shares."""
        if self.adapter:
            return LanguageModel(self.adapter.plain_copy(), self.tokens)
        return LanguageModel(copy.deepcopy(self.network).requires_grad_(requires_grad=False), self.tokens)

    def hidden_rows(self, sequences: Sequence[Sequence[int]], first: Sequence[int]) -> Tensor:
        """Returns the last hidden states [R, D] of each sequence from position `first` to its end, one after the other.

        What all begin with (a system message, tool descriptions) is computed once for all of them, gradients included,
        and nothing is padded. A model that keeps other state than keys and values cannot be packed so: its sequences
        are padded on the right, which needs no mask, as a causal model cannot look to the right.
        """
        return self._packed_rows(sequences, first) if self.packs else self._padded_rows(sequences, first)

    def _packed_rows(self, sequences: Sequence[Sequence[int]], first: Sequence[int]) -> Tensor:
        shared = min(*first, common_prefix(sequences)) if len(sequences) > 1 else 0
        packing = Packing.of([len(sequence) for sequence in sequences], shared, self.device)
        with precision(self.device):
            hidden_1ND = self.network.base_model(
                input_ids=torch.tensor([packing.row(sequences)], device=self.device),
                position_ids=torch.tensor([packing.positions()], device=self.device),
                attention_mask=NO_MASK, packing=packing, use_cache=False,
            ).last_hidden_state  # fmt: skip
        return take_rows(hidden_1ND[0], packing.places(first))

    def _padded_rows(self, sequences: Sequence[Sequence[int]], first: Sequence[int]) -> Tensor:
        tokens = [torch.tensor(sequence, device=self.device) for sequence in sequences]
        tokens_BT = pad_sequence(tokens, batch_first=True, padding_value=self.tokens.end_of_turn[0])
        with precision(self.device):
            hidden_BTD = self.network.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
        return torch.cat([hidden_BTD[b, start : len(sequences[b])] for b, start in enumerate(first)])

    def rehearse(self) -> None:
        """Takes a short pass forward and back to the embedding; without gradients of weights, which are large."""
        trained, tokens_1T = self.trained_parameters().values(), self._greeting()
        self.network.requires_grad_(requires_grad=False)
        self.network.enable_input_require_grads()
        try:
            with precision(self.device):
                self.network.base_model(input_ids=tokens_1T, use_cache=False).last_hidden_state.float().sum().backward()
        finally:
            self.network.disable_input_require_grads()
            for parameter in trained:
                parameter.requires_grad_(requires_grad=True)

    def primed_cache(self, sequences: Sequence[Sequence[int]], *, longest: int) -> tuple[Any, int]:
        """Returns a key-value cache with what all sequences begin with, a row for each, and the number of its tokens.

        Empty where sharing saves too little to be worth a forward pass of its own, or the model keeps other state than
        keys and values.
        """
        cache = GrowingCache(config=self.network.config)
        shared = min(longest, common_prefix(sequences))
        if not self.plain_attention or shared * (len(sequences) - 1) < MIN_SAVED:
            return cache, 0
        tokens_1T = torch.tensor([list(sequences[0][:shared])], device=self.device)
        with precision(self.device):
            self.network.base_model(input_ids=tokens_1T, cache=cache, use_cache=True)
        cache.batch_repeat_interleave(len(sequences))
        return cache, shared

    def fixed_cache(self, cache: Any, length: int) -> Any:
        """Returns a copy of a `primed_cache` with room for `length` tokens, whose tensors stay where they are."""
        fixed = FixedCache(self.network.config, max_cache_len=length)
        for number, layer in enumerate(cache.layers):
            fixed.update(layer.keys, layer.values, number)
        return fixed

    def next_logits(self, tokens_BT: Tensor, mask: Tensor, positions_BT: Tensor, cache: Any) -> Tensor:
        """Returns the logits [B, V] of the token after `tokens_BT` in fp32, and adds these tokens to the cache.

        Args:
            tokens_BT: new tokens, padded on the left.
            mask: 1 for each token of the cache and of `tokens_BT` that is not padding [B, C], or True for each that the
                one new token may look at [B, 1, 1, C].
            positions_BT: the place of each new token in its sequence.
            cache: of `primed_cache`, or made from one.
        """
        with precision(self.device):
            hidden_BTD = self.network.base_model(
                input_ids=tokens_BT, attention_mask=mask, position_ids=positions_BT, cache=cache, use_cache=True
            ).last_hidden_state
            return logits(self.network.get_output_embeddings(), hidden_BTD[:, -1])

    def round_to_stored(self, folder: Path) -> torch.dtype:
        """Merges the adapter, then rounds all weights to the type that `folder`, the parent, is stored in; returns it.

        What is scored and published afterwards are then the same numbers.
        """
        dtype = stored_dtype(folder)
        if self.adapter:
            self.adapter.merge()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(parameter.to(dtype))
        return dtype

    def save(self, folder: Path, parent: Path) -> None:
        """Writes a plain Hugging Face directory: weights of this model, every other file as the parent has it."""
        save(self.network, folder, parent)

    def _greeting(self) -> Tensor:
        return torch.tensor([self.tokens.encode([{"role": "user", "content": "Hello"}])], device=self.device)

    @torch.no_grad()
    def _require_plain_head(self) -> None:
        """Some models scale or cap their logits after the last layer; the loss would silently be another model's."""
        tokens_BT = self._greeting()
        whole_TV = self.network(input_ids=tokens_BT, use_cache=False).logits[0].float()
        hidden_BTD = self.network.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
        ours_TV = self.head.log_probs(hidden_BTD[0], 1.0)
        if not torch.allclose(torch.log_softmax(whole_TV, -1), ours_TV, atol=1e-3):
            kind = type(self.network).__name__
            raise ModelInvalid(
                f"{kind} changes its logits after the last layer (scales or caps them): use another model"
            )


def outline(folder: Path) -> Any:
    """Returns the network of a model folder without its weights: names and shapes alone, from config.json.

    Raises:
        ModelInvalid: where that is of no causal language model.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelInvalid(
            f"{folder}: config.json is of no causal language model ({_first_line(error)}): use one that "
            "transformers' AutoModelForCausalLM knows"
        ) from error


def blocks(network: Any) -> torch.nn.ModuleList:
    """Returns a network's layers: its outermost list of modules."""
    return next(module for module in network.modules() if isinstance(module, torch.nn.ModuleList))


def silence() -> None:
    """Turns off the library's own progress bars: a step has one voice."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _pack_if_possible(network: Any) -> None:
    if network.is_backend_compatible() and _attention(network) == "sdpa":
        network.set_attn_implementation(PACKED)


def _attention(network: Any) -> str:
    return network.config._attn_implementation  # noqa: SLF001 - the library sets it by a method, and has none to ask


def _end_of_turn(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Returns the end tokens of tokenizer and generation config, first the one that closes a turn in a chat."""
    path = folder / "generation_config.json"
    named = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    found = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    ends = tuple(dict.fromkeys(token for token in found if token is not None))
    if not ends:
        raise ModelInvalid(f"{folder}: no end-of-turn token: set eos_token_id in generation_config.json")
    return closing_first(ends, tokenizer)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
