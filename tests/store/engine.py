"""A small real HTTP server that speaks the OpenAI API and says what it is told.

The real engine is asked in the tests of the whole cluster.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]


@dataclass
class Engine:
    """Answers chat completions by `reply(question)`; refuses what `transformers serve` would refuse."""

    reply: Callable[[str], Reply | str]
    logprobs: tuple[float, ...] | None = None
    """Of every answer's tokens; None: it refuses to tell, and `tool_choice` too, as `transformers serve` does."""
    takes_calls: bool = True
    """It takes tool calls out of what it says; else tools that may be called are refused, as by vLLM."""
    model: str = "/weights"
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Of every answer, besides its length."""
    key: str = ""
    """The API key without which it answers nothing, as vLLM's --api-key has it."""
    tls: ssl.SSLContext | None = None
    to_plain: bytes = b""
    """What it says to plain HTTP where it speaks TLS; empty: it hangs up."""
    url: str = ""

    @contextlib.contextmanager
    def serve(self) -> Iterator[Engine]:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def parse_request(self) -> bool:
                is_request = super().parse_request()
                if is_request and engine.key and self.headers["Authorization"] != f"Bearer {engine.key}":
                    self._send(401, {"error": "Unauthorized"})
                    return False
                return is_request

            def do_GET(self) -> None:
                self._send(200, {"object": "list", "data": [{"id": engine.model, "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(*engine.answer(body))

            def _send(self, status: int, body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for header in {**engine.headers, "Content-Length": str(len(data))}.items():
                    self.send_header(*header)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def get_request(self) -> tuple[socket.socket, Any]:
                plain, address = super().get_request()
                if engine.tls is None:
                    return plain, address
                if plain.recv(1, socket.MSG_PEEK) == b"\x16":  # a TLS record of a handshake
                    return engine.tls.wrap_socket(plain, server_side=True), address
                plain.recv(1 << 16)
                plain.sendall(engine.to_plain)
                plain.close()
                raise OSError("plain HTTP")  # then socketserver goes on

        with Server(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def answer(self, body: dict[str, Any]) -> Reply:
        self.bodies.append(body)
        if body["model"] != self.model:
            return 400, {"detail": f"Server is pinned to '{self.model}'; requested '{body['model']}'."}
        if "logprobs" in body and self.logprobs is None:
            return 422, {"detail": "Unsupported fields in the request: {'logprobs'}"}
        if "tool_choice" in body and self.logprobs is None:
            return 422, {"detail": "Unsupported fields in the request: {'tool_choice'}"}
        if "tools" in body and "tool_choice" not in body and not self.takes_calls:
            return 400, {"message": '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'}
        said = self.reply(body["messages"][-1]["content"])
        if not isinstance(said, str):
            return said
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": self._message(said, body)}
        if "logprobs" in body:
            told = [{"token": "x", "logprob": each, "bytes": None, "top_logprobs": []} for each in self.logprobs or ()]
            choice["logprobs"] = {"content": told, "refusal": None}
        return 200, {"object": "chat.completion", "choices": [choice]}

    def _message(self, said: str, body: dict[str, Any]) -> dict[str, Any]:
        around, _, call = said.partition("<tool_call>")
        if not call or "tools" not in body or not self.takes_calls:
            return {"role": "assistant", "content": said}
        made = json.loads(call.partition("</tool_call>")[0])
        function = {"name": made["name"], "arguments": json.dumps(made["arguments"], indent=1)}
        calls = [{"id": "chatcmpl-tool-1", "type": "function", "function": function}]
        return {"role": "assistant", "content": around or None, "tool_calls": calls}


def candidate(question: str) -> str:
    """What `golden` expects."""
    return question.replace("question", "new answer")


def parent(question: str) -> str:
    """What the version before says."""
    return question.replace("question", "old answer")
