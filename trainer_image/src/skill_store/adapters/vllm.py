"""vLLM, started with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.

Source: vLLM 0.32, docs/features/lora.md, vllm/entrypoints/serve/lora and openai/models/serving.py. Its `load_inplace`
is not used: the engine then reads the adapter from disk anew at every step (vllm-project/vllm#33791), and answers that
it is in the middle of go on with other weights.
"""

from __future__ import annotations

from typing import Any

import aiohttp

from skill_store.adapters.engine import ask, listed, shown
from skill_store.errors import AdapterRefused

_LOAD, _UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


class VLLM:
    """At one address."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def loaded(self) -> frozenset[str]:
        """See `Engine`."""
        return await listed(self._session, self._url)

    async def load(self, name: str, folder: str) -> None:
        """See `Engine`."""
        status, content = await ask(
            self._session, "POST", f"{self._url}{_LOAD}", {"lora_name": name, "lora_path": folder}
        )
        if status != 200:
            raise AdapterRefused(f"vLLM does not load adapter {name}: {_why(status, content)}")

    async def unload(self, name: str) -> None:
        """See `Engine`."""
        status, content = await ask(self._session, "POST", f"{self._url}{_UNLOAD}", {"lora_name": name})
        if status != 200:
            raise AdapterRefused(f"vLLM does not unload adapter {name}: {_why(status, content)}")

    def model(self, base: str, name: str) -> str:
        """See `Engine`: adapters are models of their own names."""
        del base
        return name


def _why(status: int, content: Any) -> str:
    """Source: ErrorResponse; without the setting the address is not there, and the answer is FastAPI's own."""
    error = content.get("error") if isinstance(content, dict) else None
    if status == 404 and not error:
        return "it has no such address; start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
    return f"HTTP {status} {shown(error.get('message') if isinstance(error, dict) else content)}"
