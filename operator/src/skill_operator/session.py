"""What the operator asks over HTTP beside the API server: short requests, and a bounded number of them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import aiohttp


class Session:
    """A context whose connections are closed when it ends; who asks makes a class of its own from it."""

    def __init__(self, *, seconds: float, connections: int) -> None:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=seconds),
            connector=aiohttp.TCPConnector(limit=connections),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,  # who answers may be anybody, and a few bytes can unpack to gigabytes
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
