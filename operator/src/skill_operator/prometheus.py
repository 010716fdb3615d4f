"""Figures from Prometheus: a bounded number of short requests to the one address of the settings.

An update's author chooses queries, never the address (docs/decisions/0024). What cannot be had is an answer, too: it
has no value and says why, and no candidate fails by it.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable
from typing import Any

import aiohttp

from skill_operator.observed import Answer, Question
from skill_operator.session import Session, body

TIMEOUT_SECONDS = 10.0
MAX_CONNECTIONS = 8
MAX_BYTES = 256 * 1024
MAX_WORDS = 500
"""Characters of what it says itself that are passed on."""
NO_ADDRESS = "this operator knows no Prometheus: set prometheus.url of its chart"


class Prometheus(Session):
    """Asks for instant values.

    Source: Prometheus, HTTP API, "Instant queries" and "Expression query result formats".
    """

    def __init__(self, url: str) -> None:
        super().__init__(seconds=TIMEOUT_SECONDS, connections=MAX_CONNECTIONS)
        self._url = url.rstrip("/")

    async def ask(self, questions: Iterable[Question]) -> tuple[Answer, ...]:
        """Returns an answer to each question, in their order."""
        return tuple(await asyncio.gather(*map(self._answer, questions)))

    async def _answer(self, question: Question) -> Answer:
        if not self._url:
            return Answer(question, None, NO_ADDRESS)
        try:
            value, problem = one_value(await self._query(question))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Answer(
                question, None, f"Prometheus cannot be asked: {str(error)[:MAX_WORDS] or type(error).__name__}"
            )
        return Answer(question, value, problem)

    async def _query(self, question: Question) -> Any:
        form = {"query": question.expression, "timeout": f"{TIMEOUT_SECONDS:g}s"} | (
            {"time": f"{question.at:.3f}"} if question.at else {}
        )
        async with self._session.post(f"{self._url}/api/v1/query", data=form, allow_redirects=False) as response:
            text = await body(response, MAX_BYTES)
            if text is None:
                raise ValueError("the query returns too much: aggregate it, as by sum()")
            if response.content_type != "application/json":
                raise ValueError(f"it answered with status {response.status} and no JSON")
            return parse_answer(text)


def parse_answer(text: bytes) -> Any:
    """Returns the JSON value of an answer; raises ValueError where it is none."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its answer is nested too deeply") from error


def one_value(answer: Any) -> tuple[float | None, str]:
    """Returns the one finite value in an answer, or None and why there is none."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        said = answer.get("error") if isinstance(answer, dict) else None
        return None, f"Prometheus refuses the query: {str(said or 'it does not say why')[:MAX_WORDS]}"
    try:
        return _one_value(answer["data"]["resultType"], answer["data"]["result"])
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError):
        return None, "what answers is no Prometheus: its result has another form"


def _one_value(kind: Any, result: Any) -> tuple[float | None, str]:
    if kind == "scalar":
        return _finite(result[1])
    if kind != "vector":
        return None, f"the query returns a {str(kind)[:MAX_WORDS]}, not one value"
    if len(result) != 1:
        return None, f"the query returns {len(result)} series: aggregate them, as by sum()" if result else "no data"
    return _finite(result[0]["value"][1])


def _finite(text: Any) -> tuple[float | None, str]:
    value = float(text)
    return (value, "") if math.isfinite(value) else (None, f"the value is {value}: most often nothing was counted")
