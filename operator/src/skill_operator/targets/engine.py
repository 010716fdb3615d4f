"""What the engine's own settings, in its pod template, mean for a change of weights.

Pure. Two of them matter: a store of keys and values that several pods use, or that outlives them, and a draft model.

Such a store finds what it has by tokens and by a name of the model: LMCache and vLLM's connectors by the model's path,
SGLang's HiCache by the served name. Where that name is the same for all versions, a pod with new weights goes on from
keys and values that old weights have computed, and answers wrongly without any error. Sources: LMCache,
`CacheEngineKey`; sgl-project/sglang#24758; vllm-project/vllm#44250, for adapters; vLLM, `KVTransferConfig` and
`CacheConfig.kv_offloading_backend`; SGLang, HiCache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skill_operator.api import VERSION_FIELD_PATH

Raw = Mapping[str, Any]

_CONNECTOR = re.compile(r"""--kv[-_]transfer[-_]config\b""")
_CONNECTOR_NAME = re.compile(r"""kv_connector["']?[\s:=]+["']?(\w+)""")
_OFFLOADING = re.compile(r"""--kv[-_]offloading[-_]backend[\s=]+lmcache\b""")
_HICACHE = re.compile(r"""--hicache[-_]storage[-_]backend[\s=]+["']?(\w+)""")
_LMCACHE = "LMCACHE_"
_OWN_MEMORY = frozenset({"OffloadingConnector", "MultiConnector"})
"""vLLM's connectors that keep everything in the pod's own memory, and the one that only puts others together."""
_OTHER_STORE = re.compile(r"spec_name")
"""OffloadingConnector with a store of another kind than the pod's memory."""
_DRAFT = re.compile(r"--speculative[-_](?:config|model|draft[-_]model[-_]path)\b")
_NO_MODEL = re.compile(r"\b(?:ngram|suffix)\b")
"""Ways of guessing that look at the text alone."""


@dataclass(frozen=True, slots=True)
class KvCache:
    """Keys and values that other pods, or later ones, find."""

    container: str
    setting: str
    """What says so."""
    by_path: bool
    """It tells models apart by their path; else by the name under which they are served."""
    knows_version: bool
    """What it tells them apart by differs between versions."""


def kv_cache(templates: Iterable[Raw]) -> KvCache | None:
    """Returns the store of keys and values that pods of these templates share; first one that knows no version."""
    found = [cache for template in templates for container in _containers(template) if (cache := _cache_of(container))]
    return min(found, key=lambda cache: cache.knows_version, default=None)


def draft_model(templates: Iterable[Raw]) -> str:
    """Returns the container, and its setting, that guesses tokens by another model; empty where none does.

    Answers stay those of the model itself. But the other one was made to guess the old weights' answers.
    """
    for template in templates:
        for container in _containers(template):
            line = _command_line(container)
            if (setting := _DRAFT.search(line)) and not _NO_MODEL.search(line):
                return f"container {container['name']} ({setting[0]})"
    return ""


def shared_by_versions(cache: KvCache) -> str:
    """Returns why pods with new weights would go on from what old ones have computed, and the way out."""
    if cache.knows_version:
        return ""
    key, example = (
        ("the model's path", _own_path) if cache.by_path else ("the name under which the model is served", _own_place)
    )
    return (
        f"container {cache.container} keeps keys and values where other pods find them ({cache.setting}), by {key}, "
        "which is the same for all versions: new weights would go on from what old ones have computed, and answer "
        f"wrongly without any error; run it without, or add to its pod template:\n{example(cache.container)}"
    )


def shared_by_adapters(cache: KvCache) -> str:
    """Returns the same for adapters, whose names are no part of what such a store goes by."""
    return (
        f"container {cache.container} keeps keys and values where other pods find them ({cache.setting}), whichever "
        "adapter has computed them: a new one would go on from the one before, and answer wrongly without any error; "
        "run it without"
    )


def _variable() -> str:
    return f"""{{name: SKILL_VERSION, valueFrom: {{fieldRef: {{fieldPath: "{VERSION_FIELD_PATH}"}}}}}}"""


def _own_path(container: str) -> str:
    return f"""\
initContainers:
- name: weights
  args: [fetch, --to, /weights/$(SKILL_VERSION)]
  env: [{_variable()}]
containers:
- name: {container}
  args: [--model, /weights/$(SKILL_VERSION)]
  env: [{_variable()}]"""


def _own_place(container: str) -> str:
    return f"""\
containers:
- name: {container}
  env:
  - {_variable()}
  - {{name: SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR, value: /cache/$(SKILL_VERSION)}}   # or whatever names its place"""


def _cache_of(container: Raw) -> KvCache | None:
    line, variables = _command_line(container), _variables(container)
    told = [f"$({name})" for name, given in variables.items() if given is None]
    for setting in _found_by_path(line, variables):
        return KvCache(container["name"], setting, by_path=True, knows_version=any(each in line for each in told))
    if store := _HICACHE.search(line):
        # The path is no part of its key: a name, a folder or the store's own settings have to differ.
        settings = _without_model_path(line), *(given for given in variables.values() if given)
        knows = any(each in text for each in told for text in settings)
        return KvCache(container["name"], f"--hicache-storage-backend {store[1]}", by_path=False, knows_version=knows)
    return None


def _found_by_path(line: str, variables: Mapping[str, str | None]) -> Iterator[str]:
    if _CONNECTOR.search(line):
        names = _CONNECTOR_NAME.findall(line)
        if not names or not _OWN_MEMORY.issuperset(names) or _OTHER_STORE.search(line):
            yield " ".join(["--kv-transfer-config", *(name for name in names if name not in _OWN_MEMORY)])
    if _OFFLOADING.search(line):
        yield "--kv-offloading-backend lmcache"
    yield from (name for name in variables if name.startswith(_LMCACHE))


def _without_model_path(line: str) -> str:
    return re.sub(r"--model(?:[-_]path)?[\s=]+\S+", "", line)


def _containers(template: Raw) -> Iterator[Raw]:
    yield from template["spec"].get("containers") or ()


def _command_line(container: Raw) -> str:
    return "\n".join(str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ())))


def _variables(container: Raw) -> dict[str, str | None]:
    """Returns the container's variables; None for those that are the version's name, by the pod's annotation."""
    return {
        variable["name"]: None if _field(variable) == VERSION_FIELD_PATH else str(variable.get("value") or "")
        for variable in container.get("env") or ()
    }


def _field(variable: Raw) -> str:
    return str(((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath", ""))
