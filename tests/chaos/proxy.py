"""What lies between an operator and its API server: a real HTTP proxy on the loopback address that can do harm.

It speaks plain HTTP to the operator and TLS with the operator's own certificate to the API server, so the operator has
the rights of its chart and no more. Without trouble it passes everything on unchanged. It knows nothing of updates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum

import aiohttp
from aiohttp import web

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length", "content-encoding"}
_LONGEST_LINE = 4 * 2**20
_WRITES = frozenset({"POST", "PATCH", "PUT", "DELETE"})
_GONE = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"}


class Harm(StrEnum):
    LOST_REPLY = "lost reply"
    """The request is carried out; the connection is cut instead of an answer."""
    LOST_REQUEST = "lost request"
    CONFLICT = "409"
    BUSY = "429"
    BROKEN = "500"
    SLOW = "slow"


@dataclass
class Trouble:
    """Some of the next requests about one namespace meet harm; by `chance` which, and `left` says how many at most."""

    harm: Harm
    left: int
    chance: random.Random
    done: int = 0

    def meets(self, method: str) -> bool:
        """Decides about one request, and counts it."""
        needs_write = self.harm in {Harm.LOST_REPLY, Harm.CONFLICT}
        if self.left <= 0 or (needs_write and method not in _WRITES):
            return False
        # The API server answers a POST with 409 only where the object is there already: never out of the blue.
        if (self.harm is Harm.CONFLICT and method == "POST") or (self.done and self.chance.random() < 0.5):
            return False
        self.left -= 1
        self.done += 1
        return True


@dataclass
class Proxy:
    """The proxy, as `async with open_proxy(…)` gives it."""

    session: aiohttp.ClientSession
    upstream: str
    port: int = 0
    troubles: dict[str, Trouble] = field(default_factory=dict)
    """By namespace."""
    writes: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """Answered writes by method, kind and code."""
    watches: set[asyncio.Task[None]] = field(default_factory=set)
    _silent: set[asyncio.Task[None]] = field(default_factory=set)
    _ends: dict[asyncio.Task[None], bool] = field(default_factory=dict)

    @property
    def server(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def expire_watches(self) -> int:
        """Ends every watch with 410 Gone, as a server does that has forgotten the watch's version; returns how many."""
        return self._end_watches(politely=True)

    def cut_watches(self) -> int:
        """Cuts the connection of every watch; returns how many there were."""
        return self._end_watches(politely=False)

    def silence_watches(self) -> int:
        """Lets nothing more through of every watch, and keeps its connection open; returns how many there were."""
        self._silent |= self.watches
        return len(self.watches)

    def _end_watches(self, *, politely: bool) -> int:
        ending = list(self.watches)
        for task in ending:
            self._ends[task] = politely
            task.cancel()
        return len(ending)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") in {"1", "true"}:
            return await self._watch(request)
        namespace, kind = _about(request.path)
        trouble = self.troubles.get(namespace)
        harm = trouble.harm if trouble and trouble.meets(request.method) else None
        if harm in _ANSWERS:
            return _answer(harm)
        if harm is Harm.LOST_REQUEST:
            return _cut(request)
        if harm is Harm.SLOW:
            await asyncio.sleep(2)
        try:
            async with self._forward(request) as response:
                body = await response.read()
        except (aiohttp.ClientError, ConnectionError):
            return _cut(request)  # as the operator would see it: no answer
        if request.method in _WRITES:
            self.writes[request.method, kind, response.status] += 1
        if harm is Harm.LOST_REPLY:
            return _cut(request)
        return web.Response(status=response.status, headers=_headers(response.headers), body=body)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        try:
            async with self._forward(request) as response:
                answer.set_status(response.status)
                answer.headers.update(_headers(response.headers))
                await answer.prepare(request)
                task = asyncio.create_task(self._pass_on(response, answer))
                self.watches.add(task)
                try:
                    await task
                except asyncio.CancelledError:
                    if not self._ends.pop(task, False):
                        return _cut(request)
                    await answer.write(json.dumps({"type": "ERROR", "object": _GONE}).encode() + b"\n")
                finally:
                    task.cancel()
                    self.watches.discard(task)
                    self._silent.discard(task)
        except (aiohttp.ClientError, ConnectionError):
            return _cut(request)
        return answer

    async def _pass_on(self, response: aiohttp.ClientResponse, answer: web.StreamResponse) -> None:
        async for line in response.content:  # by lines, so that what ends a watch does not land in the middle of one
            if asyncio.current_task() not in self._silent:
                await answer.write(line)

    @contextlib.asynccontextmanager
    async def _forward(self, request: web.Request) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers["Accept-Encoding"] = "identity"
        url = self.upstream + request.raw_path
        async with self.session.request(
            request.method,
            url,
            headers=headers,
            data=await request.read() or None,
            allow_redirects=False,
            read_bufsize=_LONGEST_LINE,
        ) as response:
            yield response


def _about(path: str) -> tuple[str, str]:
    """Returns the namespace and the kind (with its subresource) that a path is about."""
    match = re.search(r"/namespaces/([^/]+)/([^/]+)(?:/[^/]+(/status)?)?", path)
    return (match[1], match[2] + (match[3] or "")) if match else ("", "")


_ANSWERS: dict[Harm | None, tuple[int, str, dict[str, str]]] = {
    Harm.CONFLICT: (409, "Conflict", {}),
    Harm.BUSY: (429, "TooManyRequests", {"Retry-After": "1"}),
    Harm.BROKEN: (500, "InternalError", {}),
}


def _answer(harm: Harm | None) -> web.Response:
    code, reason, headers = _ANSWERS[harm]
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return web.json_response(status | {"message": f"{reason}, says the proxy"}, status=code, headers=headers)


def _cut(request: web.Request) -> web.Response:
    """Cuts the connection to the operator; nothing of what is returned reaches it."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _headers(headers: aiohttp.typedefs.LooseHeaders) -> dict[str, str]:
    return {name: value for name, value in dict(headers).items() if name.lower() not in _HOP_BY_HOP}


@contextlib.asynccontextmanager
async def open_proxy(upstream: str, identity: ssl.SSLContext) -> AsyncIterator[Proxy]:
    """Yields a proxy to an API server, which sees the identity's certificate; its port is one that was free."""
    connector = aiohttp.TCPConnector(ssl=identity, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        proxy = Proxy(session, upstream)
        application = web.Application(client_max_size=16 * 2**20)
        application.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.port = runner.addresses[0][1]
        try:
            yield proxy
        finally:
            proxy.cut_watches()
            await runner.cleanup()
