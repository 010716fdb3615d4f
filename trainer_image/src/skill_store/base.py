"""Which files of a plain Hugging Face folder make a base model, wherever the folder lies."""

from __future__ import annotations

import fnmatch
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from skill_store.download import copy_down
from skill_store.errors import ModelInvalid, NotFound
from skill_store.folder import FolderStore
from skill_store.objects import open_store

WANTED = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "*processor_config.json",
    "LICENSE*",
    "NOTICE*",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
"""Weights in formats that can run code or that serving engines do not read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseModelFiles:
    """The files of a base model on this machine's disk."""

    folder: Path
    paths: tuple[str, ...]

    @classmethod
    @contextmanager
    def open(cls, uri: str, *, scratch: Path | None = None) -> Iterator[BaseModelFiles]:
        """Yields the files of a folder at a URI or path; one in S3 is downloaded below `scratch` meanwhile.

        Raises:
            NotFound: when the folder is empty or not there.
            ModelInvalid: when it holds no usable model.
        """
        store = open_store(uri)
        entries = [entry for entry in store.list("") if entry.key.count("/") <= 1]
        paths = select([entry.key for entry in entries], uri)
        if isinstance(store, FolderStore):
            yield cls(store.root, paths)
            return
        with tempfile.TemporaryDirectory(dir=scratch, prefix="base-") as folder:
            sizes = {entry.key: entry.size for entry in entries}
            copy_down(store, {path: sizes[path] for path in paths}, Path(folder))
            yield cls(Path(folder), paths)


def select(names: Sequence[str], uri: str) -> tuple[str, ...]:
    """Returns those of a folder's file names that belong to a model, sorted; says in the log what stays behind.

    Raises:
        NotFound: when there are none at all.
        ModelInvalid: when weights in safetensors or the config are missing.
    """
    if not names:
        raise NotFound(f"there is nothing at {uri}; model.base must be the folder of a Hugging Face model")
    wanted = [name for name in names if _any(name, WANTED) and not _any(name, PICKLES)]
    if not any(name.endswith(".safetensors") for name in wanted):
        pickles = [name for name in names if _any(name, PICKLES)]
        found = f"its weights are {', '.join(pickles[:3])}" if pickles else "it has no weights"
        raise ModelInvalid(
            f"{uri} has no *.safetensors: {found}; pickle is not imported because loading it can run code. Convert it:"
            " AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)"
        )
    if "config.json" not in wanted:
        raise ModelInvalid(f"{uri} has no config.json; model.base must be the folder of a Hugging Face model")
    left = sorted(set(names) - set(wanted))
    if left:
        _log.info("%s: not part of the model, so not imported: %s", uri, ", ".join(left))
    return tuple(sorted(wanted))


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)
