"""Asks served pods the golden prompts, over the OpenAI API that vLLM, SGLang and `transformers serve` share.

An engine that does not answer says nothing about the candidate: that is an error of its own kind, never a bad proof.
"""
# ruff: noqa: N818 - the classes carry the names of the reasons that a user reads

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from skill_contract.manifest import Golden, GoldenSet
from skill_contract.step import Pod
from skill_store.errors import StoreError
from skill_store.proof import Answer, PodProof, judge

PATIENCE_SECONDS = 120.0
"""How long a pod may stay unreachable, counted from the first question to it."""
PODS_AT_ONCE = 4
PROMPTS_AT_ONCE = 2
"""Per pod: enough to keep an engine busy, too few to crowd out its users."""
LEAST_LOGPROB = -9999.0
"""Engines write it where a probability is 0 (JSON has no infinity); what is less, or no number, is taken for it."""
MAX_BYTES = 16 << 20
"""Of an answer: far more than any golden prompt's, with log-probabilities."""
_PAUSE_SECONDS = 2.0
_TIMEOUT = httpx.Timeout(300, connect=5)
_PLAIN = {"Accept-Encoding": "identity"}
_BUSY = {408, 425, 429}
_CHAT = "/v1/chat/completions"

_log = logging.getLogger(__name__)


class EngineUnreachable(StoreError):
    """A pod did not answer in time."""

    reason = "EngineUnreachable"
    retriable = True


class EngineRefused(StoreError):
    """A pod's engine answered that the request is wrong, which usually means another served model name."""

    reason = "EngineRefused"


def prove(
    pods: Sequence[Pod], golden: GoldenSet, *, model: str = "", patience_seconds: float = PATIENCE_SECONDS
) -> list[PodProof]:
    """Returns how each pod answers, in the order of `pods`.

    `model` is the name that the engines serve under; empty: the first that each lists at /v1/models.

    Raises:
        EngineUnreachable: when a pod cannot be reached or answers with server errors for longer than the patience.
        EngineRefused: when an engine does not accept the request.
    """
    with ThreadPoolExecutor(PODS_AT_ONCE) as pool:
        return list(pool.map(lambda pod: _prove_pod(pod, golden, model, patience_seconds), pods))


def _prove_pod(pod: Pod, golden: GoldenSet, model: str, patience_seconds: float) -> PodProof:
    # No proxy of the environment stands between two pods.
    with httpx.Client(base_url=pod.url, headers=_PLAIN, timeout=_TIMEOUT, trust_env=False) as client:
        engine = _Engine(pod, client, deadline=time.monotonic() + patience_seconds)
        name = model or engine.first_model()
        with ThreadPoolExecutor(PROMPTS_AT_ONCE) as pool:
            answers = list(pool.map(lambda prompt: engine.answer(name, prompt), golden.prompts))
    result = judge(pod.name, golden, answers)
    _log.info("%s: %s", "proved" if result.proved else "not proved", result.evidence())
    return result


@dataclass(frozen=True)
class _Engine:
    pod: Pod
    client: httpx.Client
    deadline: float
    """Reading of the monotonic clock after which an unreachable pod is given up."""
    is_silent: threading.Event = field(default_factory=threading.Event)
    """Set when it is known to tell no log-probabilities."""

    def first_model(self) -> str:
        models = self._call("GET", "/v1/models")
        try:
            return str(models["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise EngineRefused(
                f"pod {self.pod.name} lists no model at {self.pod.url}/v1/models; set serving.servedModelName"
            ) from error

    def answer(self, model: str, prompt: Golden) -> Answer:
        """Returns a greedy answer, without text where the engine made a tool call of it."""
        question: dict[str, Any] = {
            "model": model,
            "messages": list(prompt.messages),
            "temperature": 0,
            "max_tokens": prompt.max_new_tokens,
            "stream": False,
        }
        if prompt.chat_template_arguments:
            question["chat_template_kwargs"] = prompt.chat_template_arguments
        reply = self._probable(question) or self._call("POST", _CHAT, question)
        return chat_answer(self.pod.name, reply)

    def _probable(self, question: dict[str, Any]) -> Any:
        """Returns the reply to a question that asks for log-probabilities too; None where the engine has none."""
        if self.is_silent.is_set():
            return None
        try:
            return self._call("POST", _CHAT, {**question, "logprobs": True})
        except EngineRefused:  # `transformers serve` refuses the field; what else it may refuse, it does again
            self.is_silent.set()
            return None

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        while True:
            try:
                status, text = self._exchange(method, path, body)
                if status < 500 and status not in _BUSY:
                    return self._content(status, text, path)
                fault = f"HTTP {status} {_shown(text)}"
            except (httpx.RequestError, httpx.InvalidURL) as error:  # the latter in a Location
                fault = f"{type(error).__name__}: {error}"
            if time.monotonic() + _PAUSE_SECONDS > self.deadline:
                raise EngineUnreachable(
                    f"pod {self.pod.name} does not answer at {self.pod.url}{path} ({fault}); if the pod is ready, see"
                    " whether a NetworkPolicy or a mesh lets the promote step in"
                )
            _log.warning("pod %s: %s; asking again", self.pod.name, fault)
            time.sleep(_PAUSE_SECONDS)

    def _exchange(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """Returns status and body of an answer as it came; of one that does not end, no more than its beginning."""
        text = bytearray()
        with self.client.stream(method, path, json=body) as response:
            for chunk in response.iter_raw():  # nothing is unpacked: a few bytes can become gigabytes
                text += chunk
                if len(text) > MAX_BYTES:
                    raise EngineRefused(
                        f"pod {self.pod.name} answers {path} with more than {MAX_BYTES >> 20} MiB;"
                        " is serving.port right?"
                    )
        return response.status_code, bytes(text)

    def _content(self, status: int, text: bytes, path: str) -> Any:
        if status >= 400:
            raise EngineRefused(
                f"pod {self.pod.name} refuses a chat completion: HTTP {status} {_shown(text)};"
                " serving.servedModelName must be the name that the engine serves under"
            )
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EngineRefused(
                f"{self.pod.url}{path} answers no JSON but {_shown(text)!r}; is serving.port right?"
            ) from error


def _shown(text: bytes) -> str:
    return text[:200].decode(errors="replace")


def chat_answer(pod: str, reply: Any) -> Answer:
    """Returns what an engine has answered.

    Raises:
        EngineRefused: where there is no chat completion in its reply.
    """
    try:
        choice = reply["choices"][0]
        text = choice["message"].get("content") or ""
        if isinstance(text, str):
            return Answer(text, _logprobs(choice))
        problem = "content that is no text"
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        problem = type(error).__name__
    raise EngineRefused(f"pod {pod}: no chat completion ({problem}) in {repr(reply)[:200]}")


def _logprobs(choice: dict[str, Any]) -> tuple[float, ...]:
    """Source: OpenAI API, chat completion object, `choices[].logprobs.content[].logprob`."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(min(0.0, max(LEAST_LOGPROB, float(token["logprob"]))) for token in content)
