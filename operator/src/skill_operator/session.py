"""What the operator asks over HTTP beside the API server: short requests, and a bounded number of them."""

from __future__ import annotations

from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp

POD_SECONDS = 3.0
POD_CONNECTIONS = 32
POD_BYTES = 64 * 1024


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


async def body(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """Returns the whole body of an answer; None where it has more than `most` bytes, which are not read."""
    text = bytearray()
    async for chunk in response.content.iter_any():
        text += chunk
        if len(text) > most:
            return None
    return bytes(text)


class PodSession(Session):
    """Asks pods: what goes wrong, whatever it is, is silence."""

    def __init__(self) -> None:
        super().__init__(seconds=POD_SECONDS, connections=POD_CONNECTIONS)

    async def _ask(self, ip: str, port: int, path: str) -> tuple[bytes, str] | None:
        """Returns body and Date of a pod's answer; None where there is none that could be a document."""
        host = f"[{ip}]" if ":" in ip else ip
        try:
            async with self._session.get(f"http://{host}:{port}{path}", allow_redirects=False) as response:
                text = await body(response, POD_BYTES) if response.status == HTTPStatus.OK else None
                return None if text is None else (text, response.headers.get("Date", ""))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
