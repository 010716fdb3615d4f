"""Asks served pods the golden prompts, over the OpenAI API that vLLM, SGLang and `transformers serve` share.

An engine that does not answer says nothing about the candidate: that is an error of its own kind, never a bad proof.
"""
# ruff: noqa: N818 - the classes carry the names of the reasons that a user reads

from __future__ import annotations

import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from skill_contract.manifest import Golden, GoldenSet, ToolCall
from skill_contract.step import PODS_AT_ONCE, Pod
from skill_store.errors import StoreError
from skill_store.proof import Answer, PodProof, judge

KEY_VARIABLE, CA_VARIABLE, NAME_VARIABLE = "ENGINE_API_KEY", "ENGINE_CA", "ENGINE_NAME"
"""Of the promote step's environment: see `Access`."""
PATIENCE_SECONDS = 120.0
"""How long a pod may stay unreachable, counted from the first question to it."""
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
_SHUT = {401, 403}
_DISTRUST = "CERTIFICATE_VERIFY_FAILED"
"""OpenSSL's name for it, in what Python and httpx say."""
_CHAT = "/v1/chat/completions"
_PROBABLY: Mapping[str, Any] = {"logprobs": True}
_WAYS: Sequence[Mapping[str, Any]] = (_PROBABLY, {})
_WAYS_WITH_TOOLS: Sequence[Mapping[str, Any]] = (_PROBABLY, {**_PROBABLY, "tool_choice": "none"}, {})
"""What is asked for beside the answer, until an engine does not refuse it. `transformers serve` refuses both fields
(`UNUSED_CHAT_COMPLETION_FIELDS`). vLLM without --tool-call-parser refuses tools that may be called, and else shows them
to the model all the same and gives the text as it is; SGLang then would not show them, but has taken the first way."""

_log = logging.getLogger(__name__)


class EngineUnreachable(StoreError):
    """A pod did not answer in time, or does not let us ask it."""

    reason = "EngineUnreachable"
    retriable = True


class EngineRefused(StoreError):
    """A pod's engine answered that the request is wrong, which usually means another served model name."""

    reason = "EngineRefused"


@dataclass(frozen=True, slots=True)
class Access:
    """What engines that are not open to everybody are asked with."""

    key: str = ""
    """The API key that they want (a bearer token); empty: none."""
    ca: str = ""
    """Certificates in PEM of those who sign the engines'; empty: an engine's is not verified, and gets no key."""
    name: str = ""
    """A name in the engines' certificates, such as their Service's; empty: the pods' own addresses are in them."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Access:
        """Returns what the promote step was given."""
        return cls(*(environment.get(each, "").strip() for each in (KEY_VARIABLE, CA_VARIABLE, NAME_VARIABLE)))


_OPEN = Access()


def prove(
    pods: Sequence[Pod],
    golden: GoldenSet,
    *,
    model: str = "",
    access: Access = _OPEN,
    patience_seconds: float = PATIENCE_SECONDS,
) -> list[PodProof]:
    """Returns how each pod answers, in the order of `pods`.

    Args:
        model: the name that the engines serve under; empty: the first that each lists at /v1/models.
        access: to those that are not open to everybody.

    Raises:
        EngineUnreachable: when a pod cannot be reached or answers with server errors for longer than the patience;
            at once where it wants another key, speaks TLS where it was not said to, or cannot show who it is.
        EngineRefused: when an engine does not accept the request.
    """
    with ThreadPoolExecutor(PODS_AT_ONCE) as pool:
        return list(pool.map(lambda pod: _prove_pod(pod, golden, model, access, patience_seconds), pods))


def _prove_pod(pod: Pod, golden: GoldenSet, model: str, access: Access, patience_seconds: float) -> PodProof:
    headers = {**_PLAIN, "Authorization": f"Bearer {access.key}"} if access.key else _PLAIN
    # No proxy of the environment stands between two pods.
    with httpx.Client(
        base_url=pod.url, headers=headers, verify=_trust(pod, access), timeout=_TIMEOUT, trust_env=False
    ) as client:
        engine = _Engine(pod, client, deadline=time.monotonic() + patience_seconds, name=access.name)
        name = model or engine.first_model()
        with ThreadPoolExecutor(PROMPTS_AT_ONCE) as pool:
            answers = list(pool.map(lambda prompt: engine.answer(name, prompt), golden.prompts))
    result = judge(pod.name, golden, answers)
    _log.info("%s: %s", "proved" if result.proved else "not proved", result.evidence())
    return result


def _trust(pod: Pod, access: Access) -> ssl.SSLContext:
    """Returns how a pod's certificate is verified; raises EngineUnreachable before anybody unknown gets the key."""
    if not pod.url.startswith("https:"):
        return _any_certificate()  # there is none
    if access.ca:
        try:
            return ssl.create_default_context(cadata=access.ca)
        except (ssl.SSLError, ValueError, TypeError) as error:
            raise EngineUnreachable(f"{CA_VARIABLE} holds no certificates in PEM ({error})") from error
    if access.key:
        raise EngineUnreachable(
            f"pod {pod.name} speaks TLS at {pod.url}, and nobody gets {KEY_VARIABLE} who does not show a certificate:"
            f" give that of the CA which signs it as {CA_VARIABLE}, and a name in it as {NAME_VARIABLE}, in"
            " spec.training.template.env"
        )
    _log.warning("pod %s: its certificate is not verified, because there is no %s", pod.name, CA_VARIABLE)
    return _any_certificate()


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class _Engine:
    pod: Pod
    client: httpx.Client
    deadline: float
    """Reading of the monotonic clock after which an unreachable pod is given up."""
    name: str = ""
    """For which its certificate is; empty: for its address."""
    refused: dict[str, int] = field(default_factory=dict)
    """How many ways of asking it is known to refuse, with tools and without."""

    def first_model(self) -> str:
        models = self._call("GET", "/v1/models")
        try:
            return str(models["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise EngineRefused(
                f"pod {self.pod.name} lists no model at {self.pod.url}/v1/models; set serving.servedModelName"
            ) from error

    def answer(self, model: str, prompt: Golden) -> Answer:
        """Returns a greedy answer."""
        question: dict[str, Any] = {
            "model": model,
            "messages": list(_as_sent(prompt.messages)),
            "temperature": 0,
            "max_tokens": prompt.max_new_tokens,
            "stream": False,
        }
        if prompt.tools:
            question["tools"] = list(prompt.tools)
        if prompt.chat_template_arguments:
            question["chat_template_kwargs"] = prompt.chat_template_arguments
        return chat_answer(self.pod.name, self._ask(question))

    def _ask(self, question: dict[str, Any]) -> Any:
        """Returns the reply to a question, asked in the first way that the engine does not refuse."""
        kind, ways = ("with tools", _WAYS_WITH_TOOLS) if "tools" in question else ("without", _WAYS)
        for number in range(self.refused.get(kind, 0), len(ways) - 1):
            try:
                return self._call("POST", _CHAT, {**question, **ways[number]})
            except EngineRefused:  # what it may refuse for another reason, it does again
                self.refused[kind] = max(self.refused.get(kind, 0), number + 1)
        return self._call("POST", _CHAT, {**question, **ways[-1]})

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        while True:
            try:
                status, text = self._exchange(method, path, body)
                if status < 500 and status not in _BUSY:
                    return self._content(status, text, path)
                fault = f"HTTP {status} {_shown(text)}"
            except (httpx.RequestError, httpx.InvalidURL) as error:  # the latter in a Location
                if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                    self._want_plain_http()
                fault = f"{type(error).__name__}: {error}"
                if _DISTRUST in fault:
                    raise self._distrusted(fault) from error
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
        told = {"sni_hostname": self.name} if self.name else None
        with self.client.stream(method, path, json=body, extensions=told) as response:
            for chunk in response.iter_raw():  # nothing is unpacked: a few bytes can become gigabytes
                text += chunk
                if len(text) > MAX_BYTES:
                    raise EngineRefused(
                        f"pod {self.pod.name} answers {path} with more than {MAX_BYTES >> 20} MiB;"
                        " is serving.port right?"
                    )
        return response.status_code, bytes(text)

    def _want_plain_http(self) -> None:
        """Raises EngineUnreachable where the port speaks TLS: servers differ in what they say to plain HTTP there."""
        if self.client.base_url.scheme == "http" and _speaks_tls(self.client.base_url):
            raise EngineUnreachable(
                f"pod {self.pod.name} speaks TLS at {self.pod.url}, and none of its probes says so: where its engine"
                " does, write scheme: HTTPS into the httpGet of its readinessProbe; where a mesh does, exempt the port"
            )

    def _distrusted(self, fault: str) -> EngineUnreachable:
        asked = f"{NAME_VARIABLE} {self.name!r}" if self.name else f"its address (there is no {NAME_VARIABLE})"
        return EngineUnreachable(
            f"pod {self.pod.name} does not show at {self.pod.url} that it is {asked} by a certificate that"
            f" {CA_VARIABLE} has signed, and was told nothing: {fault}"
        )

    def _content(self, status: int, text: bytes, path: str) -> Any:
        if status in _SHUT:
            raise EngineUnreachable(
                f"pod {self.pod.name} does not let the promote step ask at {self.pod.url}{path}: HTTP {status}"
                f" {_shown(text)}; where the engine wants an API key, give it as {KEY_VARIABLE}, in"
                " spec.training.template.env or in the Secret of spec.storage.secretRef"
            )
        if status == 400 and b"https" in text.lower():
            self._want_plain_http()
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


def _speaks_tls(url: httpx.URL) -> bool:
    context = _any_certificate()  # nothing is sent: it is only heard
    try:
        with (
            socket.create_connection((url.host, url.port or 80), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=url.host),
        ):
            return True
    except OSError:
        return False


def _shown(text: bytes) -> str:
    return text[:200].decode(errors="replace")


def _as_sent(messages: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yields messages as the API has them; chat templates want the arguments of calls as objects, and need no ids.

    Source: OpenAI API, chat completions, `messages[].tool_calls[]` and `tool_call_id`.
    """
    unanswered: list[str] = []
    for place, message in enumerate(messages):
        if message.get("tool_calls"):
            calls = [_call_as_sent(call, f"call_{place}_{at}") for at, call in enumerate(message["tool_calls"])]
            unanswered = [call["id"] for call in calls]
            yield {**message, "tool_calls": calls}
        elif message.get("role") == "tool" and "tool_call_id" not in message and unanswered:
            yield {**message, "tool_call_id": unanswered.pop(0)}
        else:
            yield message


def _call_as_sent(call: Mapping[str, Any], name: str) -> dict[str, Any]:
    function = dict(call["function"])
    if not isinstance(function["arguments"], str):
        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return {"id": name, "type": "function", **call, "function": function}


def chat_answer(pod: str, reply: Any) -> Answer:
    """Returns what an engine has answered.

    Raises:
        EngineRefused: where there is no chat completion in its reply.
    """
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        if isinstance(text, str):
            return Answer(text, _logprobs(choice), tuple(map(_call_made, message.get("tool_calls") or ())))
        problem = "content that is no text"
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        problem = type(error).__name__
    raise EngineRefused(f"pod {pod}: no chat completion ({problem}) in {repr(reply)[:200]}")


def _call_made(call: Any) -> ToolCall:
    """Source: OpenAI API, chat completion object, `choices[].message.tool_calls[].function`."""
    function = call["function"]
    given = function.get("arguments") or {}
    return ToolCall.of(function["name"], json.loads(given) if isinstance(given, str) else given)


def _logprobs(choice: dict[str, Any]) -> tuple[float, ...]:
    """Source: OpenAI API, chat completion object, `choices[].logprobs.content[].logprob`."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(min(0.0, max(LEAST_LOGPROB, float(token["logprob"]))) for token in content)
