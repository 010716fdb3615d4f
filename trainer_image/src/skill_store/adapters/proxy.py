"""The port at which the pod is asked: requests go through to the engine, with the name of the version that
is to answer.

So the change from one version to another is one assignment, for every engine: no request fails for it, and none begins
with one version and ends with another. It also keeps an engine's other addresses (loading adapters, changing
weights) from whoever can reach the pod: only those of questions are passed on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

from skill_contract.adapters import READY_PATH, REPORT_PATH
from skill_store.adapters.agent import Agent

MOST_BYTES = 64 * 1024 * 1024
"""Of a request: several images."""
_PASSED = (
    "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings",
    "/v1/rerank", "/v1/score", "/v1/classify", "/v1/pooling", "/v1/audio", "/tokenize", "/detokenize",
    "/health", "/metrics", "/version",
)  # fmt: skip
"""Addresses of questions, alone or with more behind them."""
_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "host", "content-length", "expect",
})  # fmt: skip
"""Source: RFC 9110, section 7.6.1; Host and Content-Length are those of the new message."""
_FOREVER = aiohttp.ClientTimeout(total=None, connect=5)
"""How long an answer may take is the business of whoever waits for it."""

_log = logging.getLogger(__name__)


def application(agent: Agent, session: aiohttp.ClientSession, engine: str) -> web.Application:
    """Returns what answers at the pod's port.

    Args:
        engine: its address, such as http://127.0.0.1:8000.
    """
    front = _Front(agent, session, engine)
    served = web.Application(client_max_size=MOST_BYTES)
    served.router.add_get(READY_PATH, front.ready)
    served.router.add_get(REPORT_PATH, front.report)
    served.router.add_route("*", "/{path:.*}", front.forward)
    return served


class _Front:
    def __init__(self, agent: Agent, session: aiohttp.ClientSession, engine: str) -> None:
        self._agent, self._session, self._engine = agent, session, engine

    async def ready(self, _: web.Request) -> web.Response:
        is_ready = self._agent.is_ready
        return web.Response(status=200 if is_ready else 503, text="ready\n" if is_ready else "not ready\n")

    async def report(self, _: web.Request) -> web.Response:
        return web.Response(text=self._agent.report().dump_json(), content_type="application/json")

    async def forward(self, request: web.Request) -> web.StreamResponse:
        if not _is_passed(request.path):
            return _error(404, f"{request.path} is not passed on to the engine; questions are, such as {_PASSED[1]}")
        body = await request.read()
        question = _question(request, body)
        if question is None:
            return await self._pass_on(request, body)
        with self._agent.route(str(question.get("model") or "")) as model:
            if model is None:
                return _error(503, f"{self._agent.model_served} is being loaded; ask again", {"Retry-After": "1"})
            if model != question.get("model"):
                body = renamed(question, model) or body
            return await self._pass_on(request, body)

    async def _pass_on(self, request: web.Request, body: bytes) -> web.StreamResponse:
        try:
            reply = await self._session.request(
                request.method,
                f"{self._engine}{request.rel_url}",
                data=body or None,
                headers=_end_to_end(request.headers),
                timeout=_FOREVER,
                allow_redirects=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
        except aiohttp.ClientError as error:
            return _error(503, f"the engine does not answer: {error}", {"Retry-After": "1"})
        async with reply:
            return await _answer(request, reply)


async def _answer(request: web.Request, reply: aiohttp.ClientResponse) -> web.StreamResponse:
    answer = web.StreamResponse(status=reply.status, reason=reply.reason, headers=_end_to_end(reply.headers))
    if reply.content_length is not None:
        answer.content_length = reply.content_length
    await answer.prepare(request)
    async for piece in reply.content.iter_any():
        await answer.write(piece)
    await answer.write_eof()
    return answer


def _is_passed(path: str) -> bool:
    return ".." not in path and any(path == each or path.startswith(f"{each}/") for each in _PASSED)


def _question(request: web.Request, body: bytes) -> dict[str, Any] | None:
    """Returns the JSON object in a request that names a model, or leaves it out; None for any other request."""
    return question_in(body) if request.method == "POST" and request.content_type == "application/json" else None


def question_in(body: bytes) -> dict[str, Any] | None:
    """Returns the JSON object in a body; None: the engine has its own words for it."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def renamed(question: Mapping[str, Any], model: str) -> bytes | None:
    """Returns a question as it is put to another model; None for one that is nested too deeply to write."""
    try:
        return json.dumps({**question, "model": model}).encode()
    except RecursionError:
        return None


def _end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    dropped = _HOP | {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return [(name, value) for name, value in headers.items() if name.lower() not in dropped]


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns an error as the OpenAI API words it."""
    said = {"error": {"message": message, "type": "skillupdate", "code": status}}
    return web.json_response(said, status=status, headers=headers)
