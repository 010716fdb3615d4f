"""Adapters into a real engine, through the real agent: `python -m benchmarks.live_adapters --model FOLDER`.

Prints the rows of a table. The engine runs already (docs/adapters.md has its command), serves FOLDER as `support-llm`
and listens at --engine-url. Two adapters of random weights are published in a repository of this run's own; their
answers differ from each other and from the model's. Clients ask all the time while the agent is told one and the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web
from safetensors.numpy import save_file

from skill_contract.adapters import REPORT_PATH, AdapterReport, model_name
from skill_contract.manifest import Manifest, VersionRef
from skill_store import layout
from skill_store.fetch import fetch
from skill_store.repository import Repository

SERVED = "support-llm"
PORT = 18080
QUESTION = "Name three rivers."
TOKENS = 24
PIECES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="what the engine serves: a Llama")
    parser.add_argument("--price", action="store_true", help="what passing on costs, with an engine that does nothing")
    parser.add_argument("--engine", default="vllm", choices=("vllm", "sglang"))
    parser.add_argument("--engine-url", default="http://127.0.0.1:18000")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for what, value in asyncio.run((price if options.price else measured)(options, Path(folder))):
            print(f"| {what} | {value} |")


async def price(options: argparse.Namespace, folder: Path) -> list[tuple[str, str]]:
    """Returns the agent's own processor time, which other work on the machine does not change much."""
    fetch(folder / "weights", layout.version_uri(*base_of(folder)), "")
    engine = await idle_engine()
    options.engine_url = f"http://127.0.0.1:{engine.addresses[0][1]}"
    with agent(options, folder) as process:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(300)) as session:
            pod = Pod(session, folder, options.engine_url)
            await pod.until(lambda report: report.ready)
            rows = []
            for what, stream, asked in (
                ("an answer in one piece", False, 2000),
                (f"{PIECES} pieces of a stream", True, 40),
            ):
                before = processor_seconds(process)
                await asyncio.gather(*(pod.ask(SERVED, stream=stream) for _ in range(asked)))
                spent = processor_seconds(process) - before
                rows.append((f"processor time of {what}, ms", f"{1000 * spent / asked:.2f}"))
    await engine.cleanup()
    return rows


async def idle_engine() -> web.AppRunner:
    """An engine that thinks about nothing."""
    choice = {"message": {"content": "yes"}, "delta": {"content": "y"}}

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": SERVED, "parent": None}]})

    async def answer(request: web.Request) -> web.StreamResponse:
        if not (await request.json())["stream"]:
            return web.json_response({"choices": [choice]})
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        for _ in range(PIECES):
            await stream.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            await asyncio.sleep(0.002)
        return stream

    served = web.Application()
    served.router.add_get("/v1/models", models)
    served.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(served)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Source: proc(5), /proc/<pid>/stat: utime and stime, in ticks."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measured(options: argparse.Namespace, folder: Path) -> list[tuple[str, str]]:
    weights = published(folder, options.model)
    with agent(options, folder):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(300)) as session:
            return [row async for row in story(options, Pod(session, folder, options.engine_url), *weights)]


async def story(options: argparse.Namespace, pod: Pod, first: str, second: str) -> AsyncIterator[tuple[str, str]]:
    await pod.until(lambda report: report.ready)
    base = await pod.ask(SERVED)
    yield "told to loaded and answering, s", f"{await pod.told(first):.1f}"
    yield "told to loaded beside it, s", f"{await pod.told(second, previous=first, held=True):.1f}"
    answers = {name: await pod.ask(name) for name in (model_name(first), model_name(second))}
    assert len({base, *answers.values()}) == 3, "the adapters change nothing"
    assert await pod.ask(SERVED) == answers[model_name(first)]
    async with asking(pod) as said:
        await asyncio.sleep(3)
        stream = asyncio.create_task(pod.ask(SERVED, stream=True))
        yield "told to switched, s", f"{await pod.told(second, previous=first):.1f}"
        await asyncio.sleep(3)
        yield "told to the one before unloaded, s", f"{await pod.told(second):.1f}"
        await asyncio.sleep(3)
        back = await pod.told("")
        yield "told to the model's own weights, s", f"{back:.1f}"
        await asyncio.sleep(3)
    names = {base: "own weights", **{text: name for name, text in answers.items()}}
    counted = Counter(names.get(text, text[:60]) for text in said)
    yield (
        "answers meanwhile, in order of their first",
        ", ".join(f"{count} of {name}" for name, count in counted.items()),
    )
    assert set(said) <= {base, *answers.values()}, "an answer is of no version"
    assert await stream == answers[model_name(first)], "an answer that had begun has changed"
    direct = [await timed(pod.ask(SERVED, at=options.engine_url)) for _ in range(20)]
    through = [await timed(pod.ask(SERVED)) for _ in range(20)]
    yield f"an answer of {TOKENS} tokens, direct, ms (median of 20)", f"{1000 * median(direct):.1f}"
    yield "the same through the agent", f"{1000 * median(through):.1f}"


@dataclass
class Pod:
    """An engine and its agent."""

    session: aiohttp.ClientSession
    folder: Path
    engine_url: str

    async def told(self, weights: str, *, previous: str = "", held: bool = False) -> float:
        """Writes what a ConfigMap would say; returns the seconds until the agent has done it."""
        said = {"weights": weights, "previous": previous, "held": "true" if held else ""}
        for key, value in said.items():
            (self.folder / "told" / key).write_text(value)
        started = time.monotonic()
        await self.until(lambda report: report.ready and report.told.weights == weights and report.told.held == held)
        return time.monotonic() - started

    async def until(self, reached: Any) -> None:
        async with asyncio.timeout(300):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self.session.get(f"http://127.0.0.1:{PORT}{REPORT_PATH}") as reply:
                        report = AdapterReport.parse_json(await reply.read())
                    if reached(report):
                        return
                    if report.fetch and report.fetch.outcome == "Failed":
                        raise SystemExit(f"{report.fetch.reason}: {report.fetch.message}")
                await asyncio.sleep(0.05)

    async def ask(self, model: str, *, at: str = f"http://127.0.0.1:{PORT}", stream: bool = False) -> str:
        body = {
            "model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": TOKENS, "temperature": 0,
            "stream": stream,
        }  # fmt: skip
        async with self.session.post(f"{at}/v1/chat/completions", json=body) as reply:
            text = await reply.text()
            assert reply.status == 200, text
        if not stream:
            return str(json.loads(text)["choices"][0]["message"]["content"])
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        return "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines)


@contextlib.asynccontextmanager
async def asking(pod: Pod) -> AsyncIterator[list[str]]:
    """Two clients ask all the time; an error of theirs ends the run."""
    said: list[str] = []

    async def client() -> None:
        while True:
            said.append(await pod.ask(SERVED))

    clients = [asyncio.create_task(client()) for _ in range(2)]
    try:
        yield said
        for each in clients:
            assert not each.done(), each.exception()
    finally:
        for each in clients:
            each.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def timed(answer: Any) -> float:
    started = time.monotonic()
    await answer
    return time.monotonic() - started


@contextlib.contextmanager
def agent(options: argparse.Namespace, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "told").mkdir()
    flags = {
        "--engine": options.engine, "--engine-url": options.engine_url, "--port": str(PORT), "--model": SERVED,
        "--told": str(folder / "told"), "--base": str(folder / "weights"), "--to": str(folder / "adapters"),
    }  # fmt: skip
    command = [sys.executable, "-m", "skill_store.cli", "adapters", *(word for pair in flags.items() for word in pair)]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def published(folder: Path, model: Path) -> tuple[str, str]:
    """Returns two versions with adapters; what else is in them no engine reads."""
    uri, base = base_of(folder)
    repository = Repository(uri)
    fetch(folder / "weights", layout.version_uri(repository.uri, base), "")
    refs = [version(repository, folder / f"v{seed}", base, model, seed) for seed in (1, 2)]
    first, second = (layout.version_uri(repository.uri, ref) for ref in refs)
    return first, second


def base_of(folder: Path) -> tuple[str, VersionRef]:
    """Returns a repository with one version, of whose weights nobody reads more than the manifest."""
    repository = Repository((folder / "repository").as_uri())
    return repository.uri, repository.import_base(plain(folder / "base").as_uri())


def plain(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(random.Random(1).randbytes(1000))
    return folder


def version(repository: Repository, folder: Path, base: VersionRef, model: Path, seed: int) -> VersionRef:
    place = plain(folder) / "adapter"
    place.mkdir()
    shape = json.loads((model / "config.json").read_text())
    width, rank, draw = shape["hidden_size"], 8, np.random.default_rng(seed)
    tensors = {}
    for number in range(shape["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{number}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = draw.normal(size=(rank, width)).astype(np.float32) / width**0.5
        tensors[f"{name}.lora_B.weight"] = draw.normal(size=(width, rank)).astype(np.float32)
    save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"],
        "bias": "none", "base_model_name_or_path": base.version,
    }  # fmt: skip
    (place / "adapter_config.json").write_text(json.dumps(config))
    return repository.publish(folder, Manifest(files=(), sequence=1, parent=base, skill=f"random {seed}"))


if __name__ == "__main__":
    main()
