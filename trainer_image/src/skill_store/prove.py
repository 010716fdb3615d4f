"""Asks served pods the golden prompts, over the OpenAI API that vLLM, SGLang and `transformers serve` share.

An engine that does not answer says nothing about the candidate: that is an error of its own kind, never a bad proof.
"""
# ruff: noqa: N818 - the classes carry the names of the reasons that a user reads

from __future__ import annotations

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
_PAUSE_SECONDS = 2.0
_TIMEOUT = httpx.Timeout(300, connect=5)
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
    with httpx.Client(base_url=pod.url, timeout=_TIMEOUT, trust_env=False) as client:
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
        reply = self._probable(question) or self._call("POST", _CHAT, question)
        try:
            choice = reply["choices"][0]
            return Answer(choice["message"].get("content") or "", _logprobs(choice))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineRefused(f"pod {self.pod.name}: no chat completion in {str(reply)[:200]!r}") from error

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
                response = self.client.request(method, path, json=body)
                if response.status_code < 500 and response.status_code not in _BUSY:
                    return self._content(response)
                fault = f"HTTP {response.status_code} {response.text[:200]}"
            except httpx.TransportError as error:
                fault = f"{type(error).__name__}: {error}"
            if time.monotonic() + _PAUSE_SECONDS > self.deadline:
                raise EngineUnreachable(
                    f"pod {self.pod.name} does not answer at {self.pod.url}{path} ({fault}); if the pod is ready, see"
                    " whether a NetworkPolicy or a mesh lets the promote step in"
                )
            _log.warning("pod %s: %s; asking again", self.pod.name, fault)
            time.sleep(_PAUSE_SECONDS)

    def _content(self, response: httpx.Response) -> Any:
        if response.status_code >= 400:
            raise EngineRefused(
                f"pod {self.pod.name} refuses a chat completion: HTTP {response.status_code} {response.text[:200]};"
                " serving.servedModelName must be the name that the engine serves under"
            )
        try:
            return response.json()
        except ValueError as error:
            raise EngineRefused(
                f"{response.url} answers no JSON but {response.text[:80]!r}; is serving.port right?"
            ) from error


def _logprobs(choice: dict[str, Any]) -> tuple[float, ...]:
    """Source: OpenAI API, chat completion object, `choices[].logprobs.content[].logprob`."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(float(token["logprob"]) for token in content)
