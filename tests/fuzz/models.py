"""What the trainer reads of a model that somebody has brought: headers of safetensors files, chat templates."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tests.fuzz.target import Target, said

_TENSORS = {
    "__metadata__": {"format": "pt"},
    "a.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
    "b.weight": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
}


def _headers() -> list[bytes]:
    header = json.dumps(_TENSORS).encode()
    return [len(header).to_bytes(8, "little") + header + b"\0" * 12, b"\xff" * 8 + b"{}"]


def read_header(data: bytes) -> str:
    """The first file of somebody's weights."""
    import io

    from skill_trainer.errors import ModelInvalid
    from skill_trainer.stored_weights import stored_types

    try:
        found = stored_types(io.BytesIO(data), "model.safetensors")
    except ModelInvalid as error:
        return said(error, "model.safetensors")
    assert all(isinstance(name, str) for name in found)
    return ""


_CHAT: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
_PLAIN = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_REFUSING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}{{ tools | tojson }}"
)
_TEMPLATES = (
    _PLAIN,
    _REFUSING,
    "{{ messages.__class__.__mro__ }}",
    "{{ 1 // 0 }}",
    "{{ messages[9].content }}",
    "{{ messages + 1 }}",
    "{% set x = namespace(a=1) %}{{ x.a }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ ''.format.__self__ }}",
    "{{ '%s' % messages }}",
    "{{ strftime_now('%Y') }}",
)


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0, "a": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", eos_token="?", bos_token="?")


def _templates() -> list[bytes]:
    import skill_trainer.model  # noqa: F401 - its seconds are no input's

    _tokenizer()
    return [each.encode() for each in _TEMPLATES]


def read_template(data: bytes) -> str:
    """The chat template of somebody's model: its sandbox is the library's, the clean error ours."""
    from jinja2 import TemplateError

    from skill_trainer.model import ChatTokenizer

    tokenizer = _tokenizer()
    tokenizer.chat_template = data.decode(errors="replace") or "x"
    try:
        text = ChatTokenizer(tokenizer, (0,), 4096).render(_CHAT)
    except TemplateError as error:
        return said(error)
    assert "<module " not in text
    assert "<function " not in text
    return ""


TARGETS = (
    Target("safetensors", "headers of weights", _headers, read_header),
    Target("templates", "chat templates of models", _templates, read_template, 0.05),
)
