"""SGLang, started with --enable-lora, --max-lora-rank and --lora-target-modules.

Source: SGLang 0.5.23, docs/advanced_features/lora; in srt/entrypoints http_server.py and openai/serving_base.py, in
srt/managers tokenizer_control_mixin.py. A name is free for another adapter only when the last answer with it has ended,
and requests fail meanwhile; here each version has a name of its own, so none does.
"""

from __future__ import annotations

from typing import Any

import aiohttp

from skill_store.adapters.engine import ask, listed, shown
from skill_store.errors import AdapterRefused

_LOAD, _UNLOAD = "/load_lora_adapter", "/unload_lora_adapter"


class SGLang:
    """At one address."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def loaded(self) -> frozenset[str]:
        """See `Engine`."""
        return await listed(self._session, self._url)

    async def load(self, name: str, folder: str) -> None:
        """See `Engine`."""
        await self._tell(_LOAD, f"does not load adapter {name}", {"lora_name": name, "lora_path": folder})

    async def unload(self, name: str) -> None:
        """See `Engine`; it answers when the last request to the adapter has ended."""
        await self._tell(_UNLOAD, f"does not unload adapter {name}", {"lora_name": name})

    def model(self, base: str, name: str) -> str:
        """See `Engine`: `<served model name>:<adapter>`."""
        return f"{base}:{name}"

    async def _tell(self, path: str, what: str, body: dict[str, Any]) -> None:
        """Source: LoRAUpdateOutput, `success` and `error_message`, with HTTP 400 where it is no success."""
        status, content = await ask(self._session, "POST", f"{self._url}{path}", body)
        if status != 200 or not isinstance(content, dict) or not content.get("success"):
            why = content.get("error_message") if isinstance(content, dict) else content
            raise AdapterRefused(f"SGLang {what}: HTTP {status} {shown(why)}")
