"""A live engine that computes on a CPU: vLLM's addresses (tests/store/live_engine.py) over transformers and PEFT.

No engine with adapters or metrics has a build for the tests' image. Runs in a pod of the trainer's image, with nothing
but that file beside it: its own weights lie in /weights, adapters come by the agent. It takes three seconds more for
each answer where its pod's annotation, $SKILL_WEIGHTS, is of the version that a mounted file names.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.store.live_engine import Reply, VLLMDouble

WEIGHTS = Path("/weights")
SLOW = Path("/slow/version")


@dataclass
class Computing(VLLMDouble):
    """Answers greedily, one question at a time, with the log-probability of each token."""

    _one: threading.Lock = field(default_factory=threading.Lock)
    _answers: int = 0
    _seconds: float = 0

    def __post_init__(self) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(WEIGHTS)
        self._network: Any = AutoModelForCausalLM.from_pretrained(WEIGHTS)

    def loaded(self, name: str, place: Path) -> Reply:
        with self._one:
            status, said = super().loaded(name, place)
            if status == 200 and isinstance(self._network, PeftModel):
                self._network.load_adapter(str(place), adapter_name=name)
            elif status == 200:
                self._network = PeftModel.from_pretrained(self._network, place, adapter_name=name)
        return status, said

    def unloaded(self, name: str) -> Reply:
        with self._one:
            status, said = super().unloaded(name)
            if status == 200 and self.adapters:
                self._network.delete_adapter(name)
            elif status == 200:  # PEFT cannot compute with none
                self._network = self._network.unload()
        return status, said

    def got(self, path: str) -> Reply:
        if path != "/metrics":
            return super().got(path)
        requests = f'http_requests_total{{status="200"}} {self._answers}'
        return 200, f"{requests}\nrequest_seconds_count {self._answers}\nrequest_seconds_sum {self._seconds}\n"

    def answered(self, body: dict[str, Any]) -> Reply:
        model, began = body["model"], time.monotonic()
        if model not in {self.model, *self.adapters}:
            return self.unknown(model)
        with self._one, self._as(model), torch.inference_mode():
            text, tokens = self._generate(body["messages"], body.get("max_tokens", 16))
            time.sleep(3 if _is_slow() else 0)
            self._answers += 1
            self._seconds += time.monotonic() - began
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        choice["logprobs"] = {"content": tokens}
        return 200, {"object": "chat.completion", "model": model, "choices": [choice]}

    @contextlib.contextmanager
    def _as(self, model: str) -> Iterator[None]:
        if model != self.model:
            self._network.set_adapter(model)
            yield
        elif isinstance(self._network, PeftModel):
            with self._network.disable_adapter():
                yield
        else:
            yield

    def _generate(self, messages: list[dict[str, Any]], most: int) -> tuple[str, list[dict[str, Any]]]:
        prompt = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        said = self._network.generate(
            **prompt, max_new_tokens=most, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        chosen = said.sequences[0, prompt["input_ids"].shape[1] :]
        logprobs = torch.stack(said.logits)[:, 0].log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        tokens = [
            {"token": self._tokenizer.decode(token), "logprob": logprob}
            for token, logprob in zip(chosen, logprobs.tolist(), strict=True)
        ]
        return self._tokenizer.decode(chosen, skip_special_tokens=True), tokens


def _is_slow() -> bool:
    return SLOW.exists() and SLOW.read_text() in os.environ.get("SKILL_WEIGHTS", "")


def main() -> None:
    """Serves until it is told to end."""
    ended = threading.Event()
    for word in (signal.SIGTERM, signal.SIGINT):
        signal.signal(word, lambda *_: ended.set())
    with Computing(os.environ["MODEL"], host=os.environ.get("HOST", "127.0.0.1"), port=8000).serve():
        ended.wait()


if __name__ == "__main__":
    main()
