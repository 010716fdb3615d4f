"""Two engines that run on a CPU: `transformers serve`, asked over HTTP as a pod is, and CTranslate2, in-process.

CTranslate2 gets its own file format, made from the version's safetensors, and does its own arithmetic in C++; it tells
log-probabilities, which `transformers serve` does not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.cluster.controlplane import free_port

from skill_contract.manifest import Golden, GoldenSet
from skill_contract.step import Pod
from skill_store.proof import Answer, PodProof, judge
from skill_store.prove import prove
from skill_trainer.model import ChatTokenizer

Prove = Callable[[GoldenSet], PodProof]


@contextmanager
def transformers_serve(folder: Path, dtype: str) -> Iterator[Prove]:
    """Serves a version, and proves it by what it answers over HTTP."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--host", "127.0.0.1",
               "--port", str(port), "--device", "cpu", "--dtype", dtype]  # fmt: skip
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process)
        yield lambda golden: prove([Pod(name="transformers", url=url)], golden)[0]
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            httpx.get(f"{url}/v1/models", trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if process.poll() is not None:
                raise
            time.sleep(0.5)
        else:
            return


@contextmanager
def ctranslate2(folder: Path, number: str) -> Iterator[Prove]:
    """Runs a version in CTranslate2, its matrices in a format of its own: `float32` or `int8`."""
    from ctranslate2 import Generator  # noqa: PLC0415 - an extra of this benchmark alone
    from ctranslate2.converters import TransformersConverter  # noqa: PLC0415

    tokens = ChatTokenizer.load(folder)
    with tempfile.TemporaryDirectory() as made:
        TransformersConverter(str(folder)).convert(made, force=True)
        engine = Generator(made, device="cpu", compute_type=number, intra_threads=1)
        yield lambda golden: judge("ctranslate2", golden, [_answer(engine, tokens, each) for each in golden.prompts])


def _answer(engine: Any, tokens: ChatTokenizer, prompt: Golden) -> Answer:
    words = tokens.tokenizer.convert_ids_to_tokens
    asked, ends = words(tokens.encode(prompt.messages)), words(list(tokens.end_of_turn))
    (result,) = engine.generate_batch(
        [asked], max_length=prompt.max_new_tokens, sampling_topk=1, include_prompt_in_result=False, end_token=ends
    )
    said = result.sequences_ids[0]
    (scored,) = engine.score_batch([asked + words(said)])
    return Answer(tokens.decode(said), tuple(scored.log_probs[-len(said) :]) if said else ())
