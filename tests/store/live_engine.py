"""Doubles of engines that load adapters while they run: real HTTP servers, which keep what the documented ones keep.

Written from the sources that `skill_store.adapters.vllm` and `.sglang` name: addresses, states, words of errors. They
compute nothing; what an adapter would say stands in its folder.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

Reply = tuple[int, Any]


@dataclass
class LiveEngine:
    """Serves a model and adapters of it; each answer says whose it is."""

    model: str = "support-llm"
    most: int = 8
    """Adapters that it has places for."""
    max_rank: int = 64
    adapters: dict[str, Path] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    """Answers in pieces wait for it after the first one."""
    url: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    load: ClassVar[str]
    unload: ClassVar[str]

    @contextlib.contextmanager
    def serve(self) -> Iterator[LiveEngine]:
        """Runs it; again at the same address where it ran before, with nothing loaded."""
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                engine.calls.append((self.path, None))
                self._send(*engine.got(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                engine.calls.append((self.path, body))
                if body.get("stream"):
                    self._stream(engine.says(body["model"], body["messages"][-1]["content"]))
                else:
                    self._send(*engine.posted(self.path, body))

            def _send(self, status: int, body: Any) -> None:
                is_text = isinstance(body, str)
                data = body.encode() if is_text else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if is_text else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for piece in ("first ", text):
                    self.wfile.write(f"data: {piece}\n\n".encode())
                    engine.gate.wait(30)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass  # a client that has gone

        self.adapters.clear()
        with Server((self.host, self.port), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            self.port = server.server_port
            self.url = f"http://127.0.0.1:{self.port}"
            try:
                yield self
            finally:
                self.gate.set()
                server.shutdown()
                thread.join()

    def got(self, path: str) -> Reply:
        if path == "/health":
            return 200, ""
        base = {"id": self.model, "object": "model", "root": "/weights", "parent": None}
        loaded = [
            {"id": name, "object": "model", "root": str(place), "parent": self.model}
            for name, place in self.adapters.items()
        ]
        return 200, {"object": "list", "data": [base, *loaded]}

    def posted(self, path: str, body: dict[str, Any]) -> Reply:
        if path == self.load:
            return self.loaded(body["lora_name"], Path(body["lora_path"]))
        if path == self.unload:
            return self.unloaded(body["lora_name"])
        return self.answered(body)

    def answered(self, body: dict[str, Any]) -> Reply:
        said = self.says(body["model"], body["messages"][-1]["content"])
        if not said:
            return self.unknown(body["model"])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return 200, {"object": "chat.completion", "model": body["model"], "choices": [choice]}

    def says(self, model: str, question: str) -> str:
        """Returns the answer of a model; empty where there is none of that name."""
        if model == self.model:
            return f"base: {question}"
        place = self.adapters.get(self.adapter_of(model))
        return f"{(place / 'says').read_text()}: {question}" if place else ""

    def too_large(self, place: Path) -> int:
        """Returns the rank of an adapter where that is more than the engine takes, else 0."""
        rank = int(json.loads((place / "adapter_config.json").read_text())["r"])
        return rank if rank > self.max_rank else 0

    def adapter_of(self, model: str) -> str:
        return model

    def loaded(self, name: str, place: Path) -> Reply:
        raise NotImplementedError

    def unloaded(self, name: str) -> Reply:
        raise NotImplementedError

    def unknown(self, model: str) -> Reply:
        raise NotImplementedError


class VLLMDouble(LiveEngine):
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"

    def loaded(self, name: str, place: Path) -> Reply:
        if name in self.adapters:
            return _vllm(400, f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput")
        if not (place / "adapter_config.json").exists():
            return _vllm(404, f"Loading lora {name} failed: No adapter found for {place}", "NotFoundError")
        if rank := self.too_large(place):
            message = f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}."
            return _vllm(500, message, "InternalServerError")
        self.adapters[name] = place
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unloaded(self, name: str) -> Reply:
        if name not in self.adapters:
            return _vllm(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        del self.adapters[name]
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def unknown(self, model: str) -> Reply:
        return _vllm(404, f"The model `{model}` does not exist.", "NotFoundError")


class SGLangDouble(LiveEngine):
    load, unload = "/load_lora_adapter", "/unload_lora_adapter"

    def loaded(self, name: str, place: Path) -> Reply:
        if name in self.adapters:
            return self._update(f"LoRA with name {name} already exists. Loaded LoRAs: {list(self.adapters)}")
        if rank := self.too_large(place):
            return self._update(
                f"LoRA adapter {name} with rank {rank} is incompatible with the current LoRA memory pool"
            )
        self.adapters[name] = place
        while len(self.adapters) > self.most:  # --max-loaded-loras: the least recently used one goes
            del self.adapters[next(iter(self.adapters))]
        return self._update()

    def unloaded(self, name: str) -> Reply:
        if name not in self.adapters:
            return self._update(f"LoRA with name {name} does not exist. Loaded LoRAs: {list(self.adapters)}")
        del self.adapters[name]
        return self._update()

    def _update(self, error: str = "") -> Reply:
        loaded = {name: str(place) for name, place in self.adapters.items()}
        said = {"rid": None, "success": not error, "error_message": error or None, "loaded_adapters": loaded}
        return 400 if error else 200, said

    def adapter_of(self, model: str) -> str:
        base, _, name = model.partition(":")
        return name if base == self.model else ""

    def unknown(self, model: str) -> Reply:
        message = f"The following requested LoRA adapters are not loaded: {self.adapter_of(model)}"
        return 400, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}


def _vllm(status: int, message: str, kind: str) -> Reply:
    return status, {"error": {"message": message, "type": kind, "param": None, "code": status}}
